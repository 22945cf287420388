"""The one table of parameters, and the places that repeat it."""

import re
from pathlib import Path

import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter

from infinitevl_ros.ros.parameters import PARAMETERS, Values, table

ROOT = Path(__file__).parents[2]
# As `ros2 param describe` calls them.
TYPES = {
    ParameterType.PARAMETER_BOOL: 'boolean',
    ParameterType.PARAMETER_INTEGER: 'integer',
    ParameterType.PARAMETER_DOUBLE: 'double',
    ParameterType.PARAMETER_STRING: 'string',
    ParameterType.PARAMETER_STRING_ARRAY: 'string array',
}


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node('test_parameters')
    node.value = Values(node)
    yield node
    node.destroy_node()
    rclpy.shutdown()


def shipped(name):
    file = Path(get_package_share_directory('infinitevl_ros')) / 'config' / name
    return yaml.safe_load(file.read_text())['/**']['ros__parameters']


def test_shipped_configuration_is_the_table():
    table = {parameter.name: parameter.default for parameter in PARAMETERS}
    assert shipped('infinitevl.yaml') == table


@pytest.mark.parametrize('name', ['gpu.yaml', 'jetson.yaml', 'cpu.yaml'])
def test_other_configurations_change_what_there_is(name):
    values = shipped(name)
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    assert values
    for key, value in values.items():
        assert type(value) is type(defaults[key])
        assert value != defaults[key]
    rclpy.init()
    overrides = [Parameter(key, value=value) for key, value in values.items()]
    node = rclpy.create_node('test_configuration', parameter_overrides=overrides)
    try:
        found = Values(node)
        assert {key: found(key) for key in values} == values
    finally:
        node.destroy_node()
        rclpy.shutdown()


def test_readme_has_the_table():
    assert f'\n\n{table()}\n\n' in (ROOT / 'README.md').read_text()


def test_the_table_tells_what_a_running_node_does(node):
    """Name, type, range, default and read-only flag as `ros2 param` gets them."""
    rows = [row.strip('| ').split(' | ') for row in table().splitlines()[2:]]
    assert len(rows) == len(PARAMETERS)
    for name, kind, default, description in rows:
        name, _, star = name.partition(' ')
        name, default = name.strip('`'), default.strip('`')
        descriptor = node.describe_parameter(name)
        parts = [TYPES[descriptor.type]]
        for limits in (*descriptor.integer_range, *descriptor.floating_point_range):
            parts.append(f'{limits.from_value:g} to {limits.to_value:g}')
        if descriptor.additional_constraints:
            parts.append(descriptor.additional_constraints)
        assert kind == ', '.join(parts)
        assert yaml.safe_load(default) == node.get_parameter(name).value
        assert descriptor.description == description
        assert descriptor.read_only == (star != '*')


def test_every_parameter_is_read():
    """A parameter that nothing reads would be a promise the node does not keep."""
    source = ''.join(f.read_text() for f in (ROOT / 'infinitevl_ros' / 'ros').glob('*.py'))
    read = set(re.findall(r"value\('(\w+)'", source))
    assert read == {parameter.name for parameter in PARAMETERS}


def test_everything_is_described(node):
    for parameter in PARAMETERS:
        descriptor = node.describe_parameter(parameter.name)
        assert descriptor.description == parameter.description
        assert descriptor.read_only == parameter.read_only
        assert len(descriptor.description) > 20
        numeric = type(parameter.default) in (int, float)
        assert bool(descriptor.integer_range or descriptor.floating_point_range) == numeric


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('caption_period', -1.0, 'caption_period'),
        ('max_tokens', 0, 'max_tokens'),
        ('caption_prompt', ' ', 'caption_period 0 turns captions off'),
        ('caption_period', 1e-12, 'caption_period is 1e-12, expected at least 0.001'),
        ('rate_limit', 1e-305, 'expected at least 0.001, or 0'),
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
    assert node.get_parameter(name).value == node.value(name) == value


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
            Values(node)
    finally:
        node.destroy_node()
        rclpy.shutdown()
