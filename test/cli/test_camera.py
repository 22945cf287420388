"""The camera of the demo, as a process."""

import signal
import subprocess
import sys
import time

import pytest
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_how_one_ends_a_camera(number):
    command = [sys.executable, '-m', 'infinitevl_ros.cli.camera', '--seconds', '50']
    camera = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    rclpy.init()
    try:
        node = rclpy.create_node('looker')
        images = []
        node.create_subscription(Image, 'image', images.append, QoSProfile(depth=2))
        deadline = time.monotonic() + 30
        while not images and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        assert images
        camera.send_signal(number)
        _, errors = camera.communicate(timeout=20)
        assert (camera.returncode, errors) == (0, '')
    finally:
        camera.kill()
        node.destroy_node()
        rclpy.try_shutdown()
