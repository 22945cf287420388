"""The launch file for real: the node comes up as told, answers its camera and ends cleanly."""

import time

import pytest

launch_pytest = pytest.importorskip(
    'launch_pytest', reason='launch is part of a ROS distribution, not of the wheels'
)

import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_pytest.actions import ReadyToTest
from launch_ros.substitutions import FindPackageShare
from sensor_msgs.msg import Image

from infinitevl_ros.srv import Query


@launch_pytest.fixture
def description(checkpoint):
    launch_file = PathJoinSubstitution(
        [FindPackageShare('infinitevl_ros'), 'launch', 'infinitevl.launch.py']
    )
    arguments = {
        'model': str(checkpoint),
        'image': '/head/image_raw',
        'namespace': 'robot',
        'device': 'cpu',
    }
    return LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(launch_file),
                launch_arguments=arguments.items(),
            ),
            ReadyToTest(),
        ]
    )


@pytest.mark.launch(fixture=description)
def test_the_launched_node_sees_its_camera_and_answers():
    rclpy.init()
    node = rclpy.create_node('launch_test')
    try:
        publisher = node.create_publisher(Image, '/head/image_raw', 10)
        client = node.create_client(Query, '/robot/infinitevl_node/query')
        assert client.wait_for_service(60.0)
        message = Image(height=28, width=28, encoding='mono8', step=28, data=bytes(784))
        deadline = time.monotonic() + 30
        reply = None
        while not (reply and reply.success) and time.monotonic() < deadline:
            publisher.publish(message)
            future = client.call_async(Query.Request(question='What do you see?'))
            rclpy.spin_until_future_complete(node, future, timeout_sec=10)
            reply = future.result()
        assert reply.success, reply.message
        assert reply.frames_seen > 0
    finally:
        node.destroy_node()
        rclpy.shutdown()
