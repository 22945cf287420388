"""Several cameras, their topics and settings, and what their stamps decide."""

import itertools
import time

import cv2
import numpy as np
import pytest
from conftest import SECOND, counts, until
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from infinitevl_ros.engine.schedule import Schedule
from infinitevl_ros.ros import diagnostics
from infinitevl_ros.ros.overlay import draw
from infinitevl_ros.ros.subscription import UNKNOWN

TWO = {'cameras': ['front', 'rear'], 'max_tokens': 8}


def picture(value):
    return np.full((60, 80, 3), value, np.uint8)


def test_each_camera_has_a_memory_and_captions_of_its_own(host, connect):
    host(**TWO, caption_period=1.0)
    front = connect(camera='front', image_topic='front/image')
    rear = connect(camera='rear', image_topic='rear/image')
    for _ in range(12):
        front.publish(front.image(picture(30)))
        time.sleep(0.03)
    rear.publish(rear.image(picture(220)))
    front.wait_value('frames_taken', lambda taken: taken == 12)
    rear.wait_value('frames_taken', lambda taken: taken == 1)
    assert until(lambda: front.captions)
    assert front.captions[0].camera == 'front'
    assert not rear.captions
    assert front.ask('What?').frames_seen == 12
    assert rear.ask('What?').frames_seen == 1
    assert rear.ask('What?').answer != front.ask('What?').answer
    reply = front.ask('What?', camera='top')
    assert reply.message == 'camera is "top", expected one of front, rear'
    assert front.ask('What?', camera='').message == 'camera is "", expected one of front, rear'

    assert rear.call('rear/reset', Trigger).message == 'forgot 1 frames'
    assert front.ask('What?').frames_seen == 12
    assert front.reset().message == 'forgot 12 frames'


def test_cameras_have_settings_of_their_own(host, connect):
    parameters = {'rear.transport': 'compressed', 'rear.topic': 'back', 'rate_limit': 5.0}
    node = host(**TWO, **parameters, **{'front.rate_limit': 0.0})
    assert [camera.topic for camera in node.cameras] == ['/front/image', '/back/compressed']
    assert node.value('rate_limit', 'rear') == 5.0
    assert node.value('rate_limit', 'front') == 0.0
    rear = connect(camera='rear', image_topic='back/compressed', image_type=CompressedImage)
    data = cv2.imencode('.png', picture(9))[1].tobytes()
    rear.publish(rear.stamped(CompressedImage(format='png', data=data)))
    rear.wait_value('frames_taken', lambda taken: taken == 1)


@pytest.mark.parametrize(
    ('cameras', 'said'),
    [
        (['front', 'front'], 'none twice'),
        (['front', ''], 'has ""'),
        (['1st'], 'has "1st"'),
        (['front/left'], 'has "front/left"'),
        (['topic'], 'has "topic"'),
    ],
)
def test_names_that_cannot_be_topics_are_refused(host, cameras, said):
    with pytest.raises(ValueError, match=said):
        host(cameras=cameras)


def test_the_rate_limit_goes_by_stamps(host, connect):
    """30 frames of a 30 Hz camera at 10 Hz are 10, however fast they come."""
    host(rate_limit=10.0, caption_period=0.0)
    client = connect()
    for i in range(30):
        client.publish(client.image(stamp=100 * SECOND + i * SECOND // 30 + 1000))
        time.sleep(0.02)
    client.wait_value('frames_received', lambda received: received == 30)
    client.wait_value('frames_taken', lambda taken: taken == 10)
    assert client.values['frames_skipped'] == '20'
    remote = AsyncParameterClient(client.node, 'infinitevl_node')
    assert remote.wait_for_services(10)
    change = [Parameter('rate_limit', value=0.0)]
    assert client.wait(remote.set_parameters(change)).results[0].successful
    client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 13)


@pytest.mark.parametrize('rate', [10.0, 15.0, 30.0])
@pytest.mark.parametrize('phase', [0, SECOND // 60, SECOND // 30 - 1])
def test_a_camera_at_the_limit_loses_nothing_to_jitter(host, rate, phase):
    camera = host(rate_limit=rate, autostart=False).cameras[0]
    jitter = np.random.default_rng(0).normal(0, 0.03 * SECOND / rate, 600).astype(int)
    stamps = [100 * SECOND + phase + round(i * SECOND / rate) + int(jitter[i]) for i in range(600)]
    assert sum(map(camera._is_wanted, stamps)) == 600


@pytest.mark.parametrize('camera_rate', [11.0, 29.97, 60.0])
def test_no_more_than_the_limit_comes_through(host, camera_rate):
    camera = host(rate_limit=10.0, autostart=False).cameras[0]
    stamps = [
        100 * SECOND + round(i * SECOND / camera_rate) for i in range(round(60 * camera_rate))
    ]
    assert 590 <= sum(map(camera._is_wanted, stamps)) <= 601


def test_a_limit_that_is_raised_holds_at_once(host):
    node = host(rate_limit=0.01, autostart=False)
    camera = node.cameras[0]
    assert camera._is_wanted(100 * SECOND)
    assert not camera._is_wanted(101 * SECOND)
    node.set_parameters([Parameter('rate_limit', value=10.0)])
    assert all(camera._is_wanted(102 * SECOND + i * SECOND // 10) for i in range(10))


def test_an_image_in_ten_seconds_is_no_silence(host, connect, monkeypatch):
    monkeypatch.setattr(diagnostics, 'SILENCE', 0.5)
    host(rate_limit=0.1, caption_period=0.0)
    client = connect()
    client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 1)
    seen = len(client.statuses)
    client.stream(30)
    assert {status.message for status in client.statuses[seen:]} == {'streaming'}


def test_qos_overrides_come_before_auto(host, connect):
    node = host(**{'qos_overrides./image.subscription.reliability': 'reliable'})
    client = connect(ready=False, reliability='best_effort')
    said = 'qos_overrides./image.subscription.reliability'
    assert until(lambda: client.statuses and said in client.statuses[-1].message)
    assert node.cameras[0].subscription.reliability == 'reliable'


def test_an_override_that_leaves_it_to_the_middleware(host, connect):
    host(**{'qos_overrides./image.subscription.reliability': 'system_default'})
    client = connect()
    client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 3)
    values = {item.key: item.value for item in client.statuses[-1].values}
    assert values['image_reliability'] == 'system_default'


def test_an_override_at_fault_is_told_by_every_answer(host, connect):
    node = host(autostart=False, **{'qos_overrides./image.subscription.reliability': 'nonsense'})
    client = connect(ready=False)
    assert client.change_state('configure')
    assert not client.change_state('activate')
    assert 'cannot subscribe to /image: ' in node.failure
    assert 'qos_overrides./image.subscription.*' in client.ask('What?').message
    assert client.change_state('configure')
    assert node.failure == ''


def test_a_publisher_of_another_type_is_named(host, connect, capfd):
    host()
    client = connect(ready=False, image_topic='image', image_type=CompressedImage)
    said = 'publishes sensor_msgs/msg/CompressedImage, subscribed is sensor_msgs/msg/Image'
    assert until(lambda: client.statuses and said in client.statuses[-1].message)
    assert 'transport' in client.statuses[-1].message
    assert capfd.readouterr().err.count(said) == 1


def test_a_publisher_whose_name_comes_late_is_warned_of_once(host, connect, monkeypatch, capfd):
    """Its node is discovered a little after it, on a busy machine later than the next look."""
    node = host()
    found, unnamed = node.get_publishers_info_by_topic, True

    def unnamed_at_first(topic):
        publishers = found(topic)
        for publisher in publishers if unnamed else []:
            publisher.node_name = UNKNOWN
        return publishers

    monkeypatch.setattr(node, 'get_publishers_info_by_topic', unnamed_at_first)
    client = connect(ready=False, image_topic='image', image_type=CompressedImage)
    for name in ('a publisher', '/client'):
        said = f'/image: {name} publishes sensor_msgs/msg/CompressedImage'
        assert until(lambda said=said: client.statuses and said in client.statuses[-1].message)
        unnamed = False
    assert capfd.readouterr().err.count('publishes sensor_msgs/msg/CompressedImage') == 1


def test_the_overlay_shows_the_caption_while_someone_looks(host, connect):
    node = host(caption_period=0.2)
    client = connect()
    client.stream(4)
    assert until(lambda: client.captions)
    assert node.cameras[0].overlay._thread is None
    shown = []
    client.node.create_subscription(Image, 'infinitevl_node/overlay', shown.append, 10)
    assert until(lambda: node.cameras[0].overlay._publisher.get_subscription_count())
    message = client.image(picture(200), encoding='bgr8')
    assert until(lambda: client.publish(message) or shown, timeout=10)
    overlay = shown[-1]
    assert overlay.header == message.header
    assert (overlay.height, overlay.width, overlay.encoding) == (60, 80, 'rgb8')
    pixels = np.frombuffer(overlay.data, np.uint8).reshape(60, 80, 3)
    assert (pixels[0] == 200).all()
    assert pixels[-20:].min() < 100


@pytest.mark.parametrize('text', ['', 'a red ball', 'word ' * 100, 'x' * 300, 'äöü 猫\n\t'])
@pytest.mark.parametrize('shape', [(480, 640, 3), (20, 300, 3), (8, 8, 3)])
def test_any_text_on_any_picture(text, shape):
    pixels = np.full(shape, 128, np.uint8)
    found = draw(pixels, text)
    assert found.shape == shape
    assert (pixels == 128).all(), 'what came in is left alone'
    assert ((found != 128).any()) == bool(text)


def test_a_change_of_resolution_is_taken(host, connect):
    node = host(caption_period=0.0)
    client = connect()
    sizes = ((480, 640), (60, 80), (720, 1280), (33, 47))
    for number, (height, width) in enumerate(sizes, start=1):
        client.publish(client.image(np.zeros((height, width, 3), np.uint8)))
        assert until(lambda n=number: counts(node).taken == n)


@pytest.mark.parametrize(('mode', 'frames'), [('continue', 6), ('reset', 3)])
def test_a_bag_that_begins_again(host, connect, mode, frames):
    node = host(time_jump=mode, caption_period=0.0)
    client = connect()
    for number, second in enumerate((50, 51, 52, 50, 51, 52), start=1):
        client.publish(client.image(stamp=second * SECOND))
        assert until(lambda n=number: counts(node).taken == n)
    assert node.cameras[0].memory.frames == frames
    reply = client.ask('What?')
    assert reply.first_stamp.sec == 50
    assert reply.last_stamp.sec == 52


def test_frames_that_overtake_one_another_are_no_jump(host, connect):
    node = host(time_jump='reset', caption_period=0.0)
    client = connect()
    for number, stamp in enumerate((1000, 1040, 1033, 1070), start=1):
        client.publish(client.image(stamp=stamp * SECOND // 1000))
        assert until(lambda n=number: counts(node).taken == n)
    assert node.cameras[0].memory.frames == 4


def test_captions_only_of_changes(host, connect):
    """The same answer to the same picture is told once."""
    node = host(caption_period=0.2, caption_changes_only=True, max_tokens=1, caption_prompt='a')
    client = connect()
    for number in range(1, 13):
        client.publish(client.image(picture(0), stamp=number * SECOND // 10))
        assert until(lambda n=number: counts(node).taken == n)
    time.sleep(0.5)
    texts = [caption.text for caption in client.captions]
    assert 1 <= len(texts) < 5
    assert all(one != two for one, two in itertools.pairwise(texts))


def test_a_late_listener_gets_the_newest_caption(host, connect):
    host(caption_period=0.3, max_tokens=4)
    client = connect()
    client.stream(8)
    assert until(lambda: len(client.captions) == 2)
    late = connect()
    assert until(lambda: late.captions)
    assert late.captions[0] == client.captions[-1]


def test_what_is_due_goes_by_stamps_alone():
    schedule = Schedule()
    stamps = [0, 4, 9, 10, 11, 19, 35, 36, 40]
    assert [s for s in stamps if schedule.due(s * SECOND, 10 * SECOND)] == [10, 35, 40]
    assert not schedule.due(5 * SECOND, 10 * SECOND)
    assert schedule.due(15 * SECOND, 10 * SECOND), 'counted from where it jumped to'
    assert not schedule.due(16 * SECOND, 3 * SECOND)
    assert schedule.due(19 * SECOND, 3 * SECOND)
    assert not schedule.due(500 * SECOND, 0), 'a period of 0 is never'
    at_once = Schedule(at_once=True)
    assert [s for s in stamps if at_once.due(s * SECOND, 10 * SECOND)] == [0, 10, 35, 40]


def test_depth_and_history_can_be_overridden(host):
    node = host(**{'qos_overrides./image.subscription.depth': 7})
    assert until(lambda: node.state == 'active')
    assert node.cameras[0].subscription._qos == QoSProfile(
        depth=7, reliability=node.cameras[0].subscription._qos.reliability
    )
