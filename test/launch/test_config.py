"""The files of config/ do what they are for."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from infinitevl_ros.ros.parameters import Values
from infinitevl_ros.srv import Query

FOLDER = Path(get_package_share_directory('infinitevl_ros')) / 'config'
PRESETS = sorted(path.name for path in FOLDER.glob('*.yaml'))
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
FRAMES = 60
# A camera in a process of its own; it ends when it is told to.
CAMERA = f"""
import array, sys, time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('camera')
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, 'large_image', qos)
while not publisher.get_subscription_count():
    time.sleep(0.05)
time.sleep(1)
data = array.array('B', bytes(640 * 480 * 3))
for _ in range({FRAMES}):
    publisher.publish(Image(height=480, width=640, encoding='rgb8', step=1920, data=data))
    time.sleep(1 / 30)
print('sent', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node('viewer')
    yield node
    node.destroy_node()
    rclpy.shutdown()


@pytest.mark.parametrize('preset', PRESETS)
def test_the_node_takes_every_parameter_of_a_preset(preset):
    rclpy.init(args=['--ros-args', '--params-file', str(FOLDER / preset)])
    node = rclpy.create_node('infinitevl_node')
    try:
        values = Values(node)
        parameters = yaml.safe_load((FOLDER / preset).read_text())['/**']['ros__parameters']
        assert {name: values(name) for name in parameters} == parameters
    finally:
        node.destroy_node()
        rclpy.shutdown()


def test_with_the_profile_a_best_effort_camera_gets_its_large_images_through(node):
    received = []
    node.create_subscription(Image, 'large_image', received.append, BEST_EFFORT)
    profile = {'FASTRTPS_DEFAULT_PROFILES_FILE': str(FOLDER / 'fastdds_large_images.xml')}
    camera = subprocess.Popen(
        [sys.executable, '-c', CAMERA],
        env=os.environ | profile,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 20
        while len(received) < FRAMES and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        camera.communicate('', timeout=20)
    # Without it about one in five arrives.
    assert len(received) > 0.8 * FRAMES


def test_the_foxglove_layout_shows_every_panel_and_asks_a_valid_question():
    layout = json.loads((FOLDER / 'foxglove.json').read_text())

    def panels(part):
        if isinstance(part, str):
            return [part]
        return panels(part['first']) + panels(part['second'])

    assert sorted(panels(layout['layout'])) == sorted(layout['configById'])
    request = json.loads(layout['configById']['CallService!query']['requestPayload'])
    assert set(request) == set(Query.Request.get_fields_and_field_types())
