"""The files of config/ do what they are for."""

import array
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from infinitevl_ros.msg import Caption
from infinitevl_ros.ros.overlay import draw
from infinitevl_ros.ros.parameters import Values
from infinitevl_ros.srv import Query
from infinitevl_ros.world.patrol import story

FOLDER = Path(get_package_share_directory('infinitevl_ros')) / 'config'
PRESETS = sorted(path.name for path in FOLDER.glob('*.yaml'))
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
# Classes of RViz Jazzy, as in its panel_factory.cpp and rviz_default_plugins' description of its
# plugins; and the words of its qos_profile_property.cpp.
RVIZ = {
    'panel': {'rviz_common/Displays', 'rviz_common/Time', 'rviz_common/Views'},
    'display': {'rviz_default_plugins/Image'},
    'tool': {'rviz_default_plugins/Interact', 'rviz_default_plugins/MoveCamera'},
    'view': {'rviz_default_plugins/Orbit', 'rviz_default_plugins/TopDownOrtho'},
}
HISTORY = {'Keep Last': HistoryPolicy.KEEP_LAST, 'Keep All': HistoryPolicy.KEEP_ALL}
RELIABILITY = {
    'Best Effort': ReliabilityPolicy.BEST_EFFORT,
    'Reliable': ReliabilityPolicy.RELIABLE,
}
DURABILITY = {
    'Volatile': DurabilityPolicy.VOLATILE,
    'Transient Local': DurabilityPolicy.TRANSIENT_LOCAL,
}
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


@pytest.fixture
def infinitevl_node():
    """The node as it comes, with all of its default names."""
    script = Path(get_package_prefix('infinitevl_ros'), 'lib', 'infinitevl_ros', 'infinitevl_node')
    process = subprocess.Popen([sys.executable, script, '--ros-args', '-p', 'device:=cpu'])
    yield
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()


@pytest.fixture
def rviz():
    return yaml.safe_load((FOLDER / 'infinitevl.rviz').read_text())


def until(node, condition):
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    return condition()


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


def test_the_foxglove_layout_names_what_the_node_has(node, infinitevl_node):
    panels = json.loads((FOLDER / 'foxglove.json').read_text())['configById']
    topics = {
        panels['Image!camera']['imageMode']['imageTopic']: 'sensor_msgs/msg/Image',
        panels['Image!overlay']['imageMode']['imageTopic']: 'sensor_msgs/msg/Image',
        panels['RawMessages!captions']['topicPath']: 'infinitevl_ros/msg/Caption',
        panels['DiagnosticSummary!diagnostics']['topicToRender']: (
            'diagnostic_msgs/msg/DiagnosticArray'
        ),
    }
    service = (panels['CallService!query']['serviceName'], ['infinitevl_ros/srv/Query'])
    wanted = {(name, (kind,)) for name, kind in topics.items()}

    def there():
        return {(name, tuple(kinds)) for name, kinds in node.get_topic_names_and_types()}

    assert until(node, lambda: wanted <= there()), wanted - there()
    assert service in node.get_service_names_and_types()


def test_rviz_knows_every_class_of_its_configuration(rviz):
    manager = rviz['Visualization Manager']
    used = {
        'panel': rviz['Panels'],
        'display': manager['Displays'],
        'tool': manager['Tools'],
        'view': [manager['Views']['Current']],
    }
    for kind, parts in used.items():
        assert parts
        assert {part['Class'] for part in parts} <= RVIZ[kind]


def test_rviz_shows_any_camera_and_what_the_node_says_of_it(node, infinitevl_node, rviz):
    """As RViz subscribes; the camera is one of those that only best effort gets images of."""
    shown = {}
    for display in rviz['Visualization Manager']['Displays']:
        assert display['Enabled'] is True
        topic = display['Topic']
        qos = QoSProfile(
            depth=topic['Depth'],
            history=HISTORY[topic['History Policy']],
            reliability=RELIABILITY[topic['Reliability Policy']],
            durability=DURABILITY[topic['Durability Policy']],
        )

        def show(image, name=display['Name']):
            shown[name] = bytes(image.data)

        node.create_subscription(Image, topic['Value'], show, qos)
    captions = []
    node.create_subscription(Caption, '/infinitevl_node/captions', captions.append, 1)
    camera = node.create_publisher(Image, '/image', BEST_EFFORT)
    pixels, _ = next(iter(story(seed=7, frames=1)))
    height, width, _ = pixels.shape
    picture = Image(height=height, width=width, encoding='rgb8', step=3 * width)
    picture.data = array.array('B', pixels.tobytes())

    def caption_is_shown():
        picture.header.stamp.sec += 1  # a caption falls due every five seconds of these
        camera.publish(picture)
        return captions and shown.get('Overlay') == draw(pixels, captions[-1].text).tobytes()

    assert until(node, caption_is_shown), (captions, shown.keys())
    assert captions[-1].text
    assert shown['Camera'] == pixels.tobytes()
