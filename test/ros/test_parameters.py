"""The one table of parameters, and the places that repeat it."""

import re
from pathlib import Path

import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from rclpy.parameter import Parameter

from infinitevl_ros.ros import parameters
from infinitevl_ros.ros.parameters import PARAMETERS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node('test_parameters')
    parameters.declare(node)
    yield node
    node.destroy_node()
    rclpy.shutdown()


def test_shipped_configuration_is_the_table():
    file = Path(get_package_share_directory('infinitevl_ros')) / 'config' / 'infinitevl.yaml'
    shipped = yaml.safe_load(file.read_text())['/**']['ros__parameters']
    assert shipped == {parameter.name: parameter.default for parameter in PARAMETERS}


def test_readme_has_a_row_for_each_parameter():
    rows = re.findall(
        r'^\| `(\w+)` \| `([^`]*)` \| (.+?) \|$', (ROOT / 'README.md').read_text(), re.M
    )
    found = {name: (default, text) for name, default, text in rows}
    assert found == {p.name: (str(p.default), p.description) for p in PARAMETERS}


def test_every_parameter_is_read():
    """A parameter that nothing reads would be a promise the node does not keep."""
    source = ''.join(f.read_text() for f in (ROOT / 'infinitevl_ros' / 'ros').glob('*.py'))
    read = set(re.findall(r"_value\('(\w+)'\)", source))
    assert read == {parameter.name for parameter in PARAMETERS}


def test_everything_is_described(node):
    for parameter in PARAMETERS:
        descriptor = node.describe_parameter(parameter.name)
        assert descriptor.description == parameter.description
        assert descriptor.read_only == parameter.read_only
        assert len(descriptor.description) > 20
        numeric = isinstance(parameter.default, int | float)
        assert bool(descriptor.integer_range or descriptor.floating_point_range) == numeric


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('caption_period', -1.0, 'caption_period'),
        ('max_tokens', 0, 'max_tokens'),
        ('caption_prompt', ' ', 'caption_period 0 turns captions off'),
        ('query_timeout', 'soon', "expected 'Type.DOUBLE'"),
        ('model', '/elsewhere', 'read-only'),
        ('transport', 'compressed', 'read-only'),
    ],
)
def test_wrong_changes_are_refused_with_a_reason(node, name, value, reason):
    before = node.get_parameter(name).value
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert reason in result.reason
    assert node.get_parameter(name).value == before


@pytest.mark.parametrize(
    ('name', 'value'), [('caption_period', 0.5), ('max_tokens', 5), ('caption_prompt', 'What?')]
)
def test_changes_that_are_allowed(node, name, value):
    assert node.set_parameters([Parameter(name, value=value)])[0].successful
    assert node.get_parameter(name).value == value


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('transport', 'carrier_pigeon', 'expected one of raw, compressed'),
        ('image_reliability', 'maybe', 'expected one of auto, reliable, best_effort'),
        ('dtype', 'int8', 'expected one of auto, float32, bfloat16, fp8'),
        ('frame_size', 100, 'multiple of 28'),
    ],
)
def test_wrong_values_at_the_start(name, value, said):
    rclpy.init()
    node = rclpy.create_node('test_overrides', parameter_overrides=[Parameter(name, value=value)])
    try:
        with pytest.raises(ValueError, match=said):
            parameters.declare(node)
    finally:
        node.destroy_node()
        rclpy.shutdown()
