"""What `ros2 launch` says of the launch files, and to those who give them something wrong."""

import subprocess
from pathlib import Path

import pytest

reason = 'launch is part of a ROS distribution, not of the wheels'
pytest.importorskip('ros2launch', reason=reason)

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext
from launch.launch_description_sources import get_launch_description_from_any_launch_file
from launch.utilities import perform_substitutions

FOLDER = Path(get_package_share_directory('infinitevl_ros')) / 'launch'
FILES = sorted(path.name for path in FOLDER.glob('*.launch.*'))


def ros2_launch(*arguments):
    command = ['ros2', 'launch', 'infinitevl_ros', *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    return done.returncode, done.stdout


def declared(file):
    """Name: default, description and choices."""
    description = get_launch_description_from_any_launch_file(str(FOLDER / file))
    return {
        argument.name: (
            perform_substitutions(LaunchContext(), argument.default_value),
            argument.description,
            argument.choices,
        )
        for argument in description.get_launch_arguments()
    }


def test_the_xml_file_takes_what_the_python_file_takes():
    arguments = declared('infinitevl.launch.py')
    assert declared('infinitevl.launch.xml') == arguments
    assert {'image', 'model', 'params_file', 'autostart'} <= set(arguments)


@pytest.mark.parametrize('file', FILES)
def test_every_argument_is_described(file):
    code, shown = ros2_launch(file, '--show-args')
    assert code == 0, shown
    assert "'model':" in shown
    assert 'no description given' not in shown


@pytest.mark.parametrize(
    ('cameras', 'complaint'),
    [
        ('front', '"front"'),
        ('front:', '"front:"'),
        (':/front', '":/front"'),
        ('front:/front,', '""'),
        ('front:/front:raw:rear:/rear', '"front:/front:raw:rear:/rear"'),
        ('front:/front,rear:/rear:jpeg', 'transport "jpeg"'),
        ('front:/front,front:/rear', "['front', 'front']"),
        ('1:/front', '"1"'),
    ],
)
def test_a_malformed_list_of_cameras_is_told(cameras, complaint):
    _, output = ros2_launch('multi_camera.launch.py', f'cameras:={cameras}')
    lines = [line for line in output.splitlines() if complaint in line and 'expected' in line]
    assert len(lines) == 1, output
    assert 'Traceback' not in output


@pytest.mark.parametrize('file', ['infinitevl.launch.py', 'infinitevl.launch.xml'])
def test_a_missing_params_file_is_told(file):
    _, output = ros2_launch(file, 'params_file:=/nowhere/params.yaml')
    assert '/nowhere/params.yaml' in output
    assert 'ready' not in output


def test_a_missing_bag_is_told(tmp_path):
    code, output = ros2_launch('replay.launch.py', f'bag:={tmp_path / "bag"}')
    assert code == 1
    assert f'bag is "{tmp_path / "bag"}"' in output


@pytest.mark.parametrize('rate', ['0', '-1', 'fast', 'nan', '1e400'])
def test_a_wrong_rate_is_told_before_anything_starts(tmp_path, rate):
    code, output = ros2_launch('replay.launch.py', f'bag:={tmp_path}', f'rate:={rate}')
    assert code == 1
    assert f'rate is "{rate}", expected a number above 0' in output
