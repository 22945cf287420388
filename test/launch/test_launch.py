"""The launch files for real: the node comes up as told, answers its cameras and ends cleanly."""

import time

import pytest

launch_pytest = pytest.importorskip(
    'launch_pytest', reason='launch is part of a ROS distribution, not of the wheels'
)

import numpy as np
import yaml
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_pytest.actions import ReadyToTest
from launch_ros.substitutions import FindPackageShare
from rcl_interfaces.srv import GetParameters

from infinitevl_ros.media.bag_writer import write_bag
from infinitevl_ros.media.source import Shot

WORDS = 5
STAMPS = range(100 * 10**9, 103 * 10**9, 2 * 10**8)  # three seconds at 5 Hz


@pytest.fixture
def params_file(tmp_path):
    """Parameters that the arguments change, but for max_tokens."""
    path = tmp_path / 'params.yaml'
    parameters = {
        'topic': '/elsewhere',
        'transport': 'compressed',
        'autostart': False,
        'caption_period': 0.0,
        'max_tokens': WORDS,
    }
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': parameters}}))
    return path


def launched(file, **arguments):
    location = PathJoinSubstitution([FindPackageShare('infinitevl_ros'), 'launch', file])
    arguments = {name: str(value) for name, value in arguments.items()}
    return LaunchDescription(
        [
            IncludeLaunchDescription(
                AnyLaunchDescriptionSource(location), launch_arguments=arguments.items()
            ),
            ReadyToTest(),
        ]
    )


@launch_pytest.fixture(params=['infinitevl.launch.py', 'infinitevl.launch.xml'])
def one_camera(request, checkpoint, params_file):
    return launched(
        request.param,
        model=checkpoint,
        image='/head/image_raw',
        device='cpu',
        transport='raw',
        params_file=params_file,
        namespace='robot',
        autostart='true',
    )


@pytest.mark.launch(fixture=one_camera)
def test_arguments_come_before_the_params_file_which_gives_the_rest(robot):
    response = robot.first_answer('/robot/infinitevl_node', topic='/head/image_raw')
    assert response.frames_seen > 0
    assert response.tokens == WORDS


@launch_pytest.fixture
def two_cameras(checkpoint, params_file):
    return launched(
        'multi_camera.launch.py',
        cameras='front:/front/image_raw:raw,rear:/rear/image_raw',
        model=checkpoint,
        params_file=params_file,
        autostart='true',
    )


@pytest.mark.launch(fixture=two_cameras)
def test_cameras_have_a_topic_a_transport_and_a_memory_each(robot):
    robot.first_answer('/infinitevl_node', 'front', '/front/image_raw')
    unseen = robot.ask('/infinitevl_node', 'rear')
    assert not unseen.success
    assert '/rear/image_raw/compressed' in unseen.message
    robot.first_answer('/infinitevl_node', 'rear', '/rear/image_raw/compressed')


@launch_pytest.fixture
def demo():
    return launched('demo.launch.py', device='cpu', namespace='demo')


@pytest.mark.launch(fixture=demo)
def test_the_demo_shows_its_node_something(robot):
    assert robot.first_answer('/demo/infinitevl_node').frames_seen > 0


@launch_pytest.fixture
def replay(checkpoint, tmp_path, params_file):
    shots = (Shot(stamp, np.full((28, 28, 3), 7, np.uint8)) for stamp in STAMPS)
    write_bag(tmp_path / 'bag', '/head/image_raw', shots)
    return launched(
        'replay.launch.py',
        bag=tmp_path / 'bag',
        image='/head/image_raw',
        model=checkpoint,
        transport='raw',
        params_file=params_file,
        namespace='replay',
    )


@pytest.mark.launch(fixture=replay)
def test_a_bag_goes_through_whole_and_its_node_stays_for_questions(robot):
    """From its first frame on, though the node has a model to load; and by the bag's clock."""
    node, newest, deadline = '/replay/infinitevl_node', 0, time.monotonic() + 30
    while newest < STAMPS[-1]:
        assert time.monotonic() < deadline, f'the newest frame is of {newest} ns'
        time.sleep(0.2)
        answer = robot.first_answer(node)
        newest = answer.last_stamp.sec * 10**9 + answer.last_stamp.nanosec
    assert answer.frames_seen == len(STAMPS)
    simulated = robot.call(GetParameters, f'{node}/get_parameters', names=['use_sim_time'])
    assert simulated.values[0].bool_value
    time.sleep(3)  # the player has ended meanwhile
    assert robot.ask(node).frames_seen == len(STAMPS)
