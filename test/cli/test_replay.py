"""infinitevl replay over real DDS: what is sent, when, and what the clock says."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from infinitevl_ros.cli.main import main
from infinitevl_ros.cli.replay import Part, Stream

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
CODE = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
# Recorded unevenly, in ms from the start; the stamps are 7 ms before.
RAW = [0, 40, 90, 120, 200, 230, 300, 350, 420, 450, 500, 610, 640, 700, 790, 800, 860, 920, 1000]
JPEG = [25, 205, 405, 605, 805]


def serialized(store, kind, stamp, number):
    types = store.types
    header = types['std_msgs/msg/Header'](
        types['builtin_interfaces/msg/Time'](*divmod(stamp, SECOND)), 'head'
    )
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
    if kind == 'sensor_msgs/msg/Image':
        image = types[kind](header, 24, 32, 'rgb8', 0, 96, pixels.ravel())
    else:
        image = types[kind](header, 'jpeg', cv2.imencode('.jpg', pixels)[1].ravel())
    return bytes(store.serialize_cdr(image, kind))


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """A bag with two topics of images: its path, and [(time, bytes)] of each."""
    path = tmp_path_factory.mktemp('bags') / 'bag'
    store = get_typestore(Stores.ROS2_JAZZY)
    recorded = {}
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, kind, times in (
            ('/raw', 'sensor_msgs/msg/Image', RAW),
            ('/jpeg', 'sensor_msgs/msg/CompressedImage', JPEG),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            recorded[topic] = []
            for number, milliseconds in enumerate(times):
                at = START + milliseconds * 1_000_000
                data = serialized(store, kind, at - 7_000_000, number)
                writer.write(connection, at, data)
                recorded[topic].append((at, data))
    return path, recorded


class Listener:
    """Subscribes to serialized messages; `heard` has (steady time, bytes) by topic."""

    def __init__(self, reliability='RELIABLE', **topics):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('listener', context=self.context)
        self.heard = {name: [] for name in topics}
        qos = QoSProfile(depth=1000, reliability=ReliabilityPolicy[reliability])
        for name, kind in topics.items():
            self.node.create_subscription(
                kind, f'/{name}', lambda data, name=name: self._on(name, data),
                qos, raw=True,
            )  # fmt: skip
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def _on(self, name, data):
        self.heard[name].append((time.monotonic(), data))

    def data(self, name):
        return [data for _, data in self.heard[name]]

    def stamps(self, name, kind):
        """The stamps [ns] of the messages, or the times of a clock."""
        messages = [deserialize_message(data, kind) for data in self.data(name)]
        stamps = [m.clock if kind is Clock else m.header.stamp for m in messages]
        return [stamp.sec * SECOND + stamp.nanosec for stamp in stamps]

    def close(self):
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listen():
    listeners = []

    def listen(**options):
        listeners.append(Listener(**options))
        return listeners[-1]

    yield listen
    for listener in listeners:
        listener.close()


def assert_same(heard, wanted):
    """That messages are the same bytes; DDS may fill what it carries to a multiple of four."""
    assert len(heard) == len(wanted)
    for one, other in zip(heard, wanted, strict=True):
        assert one[: len(other)] == other
        assert len(one) in (len(other), -(-len(other) // 4) * 4)


def until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def replay(*arguments, **options):
    command = [sys.executable, '-c', CODE, 'replay', *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def test_a_bag_is_sent_as_it_was_recorded(bag, listen, capsys):
    path, recorded = bag
    listener = listen(raw=Image, jpeg=CompressedImage, clock=Clock)
    arguments = ['--topic', '/raw', '/jpeg', '--clock', '50', '--json', '-']
    assert main(['replay', str(path), *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['kind'] == 'bag'
    assert [(t['name'], t['sent'], t['bytes']) for t in result['topics']] == [
        (name, len(messages), sum(len(data) for _, data in messages))
        for name, messages in recorded.items()
    ]
    assert result['stream_seconds'] == pytest.approx(1.0)
    assert (result['passes'], result['interrupted'], result['warnings']) == (1, False, [])

    late = []
    for name, messages in recorded.items():
        heard = listener.heard[name[1:]]
        until(lambda heard=heard, messages=messages: len(heard) >= len(messages))
        assert_same([data for _, data in heard], [data for _, data in messages])
        began = listener.heard['raw'][0][0]
        for (at, _), (recorded_at, _) in zip(heard, messages, strict=True):
            late.append(at - began - (recorded_at - START) / SECOND)
    assert sorted(map(abs, late))[len(late) // 2] < 0.015
    assert max(map(abs, late)) < 0.25

    times = listener.stamps('clock', Clock)
    assert len(times) == result['clock_messages']
    assert times == sorted(times)
    assert (times[0], times[-1]) == (START, START + SECOND)
    assert {at for messages in recorded.values() for at, _ in messages} <= set(times)
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.05 * SECOND
    # At any moment the clock says when what comes then was recorded.
    clock = listener.heard['clock']
    arrivals = [at - clock[0][0] for at, _ in clock]
    off = [at - (t - START) / SECOND for at, t in zip(arrivals, times, strict=True)]
    assert sorted(map(abs, off))[len(off) // 2] < 0.015


def test_a_part_of_one_topic_at_another_speed_and_place(bag, listen, tmp_path, capsys):
    path, recorded = bag
    listener = listen(reliability='BEST_EFFORT', image=Image, clock=Clock)
    target = tmp_path / 'sent.json'
    arguments = [
        '--as',
        '/image',
        '--rate',
        '0.5',
        '--start',
        '0.2',
        '--duration',
        '0.6',
        '--clock',
    ]
    arguments += ['--reliability', 'best_effort', '--json', str(target)]
    assert main(['replay', str(path), '--topic', '/raw', *arguments]) == 0
    chosen = [(t, data) for t, data in recorded['/raw'] if 0.2 <= (t - START) / SECOND < 0.8]
    assert len(chosen) == 11
    until(lambda: len(listener.heard['image']) == 11)
    assert_same(listener.data('image'), [data for _, data in chosen])
    first, last = listener.heard['image'][0][0], listener.heard['image'][-1][0]
    assert last - first == pytest.approx((chosen[-1][0] - chosen[0][0]) / SECOND * 2, abs=0.1)
    clock, arrivals = listener.stamps('clock', Clock), [at for at, _ in listener.heard['clock']]
    assert clock == sorted(clock)
    off = [
        at - arrivals[0] - (t - clock[0]) / SECOND * 2
        for at, t in zip(arrivals, clock, strict=True)
    ]
    assert sorted(map(abs, off))[len(off) // 2] < 0.015
    result = json.loads(target.read_text())
    assert result['topics'][0]['sent'] == 11
    assert result['stream_seconds'] == pytest.approx(0.59)
    assert 'Sent 11 images on /image in ' in capsys.readouterr().out


def test_a_loop_begins_again_and_ctrl_c_ends_it(bag, listen):
    path, recorded = bag
    listener = listen(jpeg=CompressedImage, clock=Clock)
    process = replay(path, '--topic', '/jpeg', '--loop', '--rate', '4', '--clock', '--json', '-')
    count = len(JPEG)
    until(lambda: len(listener.heard['jpeg']) > 2 * count)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    result = json.loads(output)
    assert result['interrupted']
    assert result['passes'] >= 2
    wanted = [data for _, data in recorded['/jpeg']]
    sent = result['topics'][0]['sent']
    assert_same(listener.data('jpeg'), [wanted[i % count] for i in range(sent)])
    # Evenly, over the end as well.
    times = [at for at, _ in listener.heard['jpeg']]
    assert times[count] - times[count - 1] == pytest.approx(0.2 / 4, abs=0.04)
    clock = listener.stamps('clock', Clock)
    backwards = sum(b < a for a, b in itertools.pairwise(clock))
    assert backwards == (len(times) - 1) // count
    at = [t for t, _ in recorded['/jpeg']]
    assert (min(clock), max(clock)) == (at[0], at[-1])


def test_a_video_has_stamps_of_its_time(listen, tmp_path):
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 20, (64, 48))
    for i in range(10):
        writer.write(np.full((48, 64, 3), (25 * i, 0, 250 - 25 * i), np.uint8))
    writer.release()
    listener, target = listen(image=Image, clock=Clock), tmp_path / 'sent.json'
    assert main(['replay', str(path), '--clock', '--json', str(target)]) == 0
    until(lambda: len(listener.heard['image']) == 10)
    for i, data in enumerate(listener.data('image')):
        message = deserialize_message(data, Image)
        assert (message.encoding, message.width, message.height) == ('rgb8', 64, 48)
        pixel = np.frombuffer(message.data, np.uint8).reshape(48, 64, 3)[20, 20]
        assert np.abs(pixel.astype(int) - (250 - 25 * i, 0, 25 * i)).max() < 12
    stamps = [SECOND + i * SECOND // 20 for i in range(10)]
    assert listener.stamps('image', Image) == stamps
    assert set(stamps) <= set(listener.stamps('clock', Clock))
    times = [at for at, _ in listener.heard['image']]
    assert times[-1] - times[0] == pytest.approx(9 / 20, abs=0.1)
    assert json.loads(target.read_text())['kind'] == 'video'


def test_a_ros_1_bag_becomes_ros_2_messages(listen, tmp_path):
    store, path = get_typestore(Stores.ROS1_NOETIC), tmp_path / 'old.bag'
    types, kind = store.types, 'sensor_msgs/msg/Image'
    with Rosbag1Writer(path) as writer:
        connection = writer.add_connection('/camera', kind, typestore=store)
        header = types['std_msgs/msg/Header'](
            9, types['builtin_interfaces/msg/Time'](12, 34), 'head'
        )
        image = types[kind](header, 2, 2, 'mono8', 0, 2, np.array([1, 2, 3, 4], np.uint8))
        writer.write(connection, 12 * SECOND, store.serialize_ros1(image, kind))
    listener = listen(camera=Image, clock=Clock)
    assert main(['replay', str(path)]) == 0
    until(lambda: listener.heard['camera'])
    message = deserialize_message(listener.data('camera')[0], Image)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 34)
    assert (message.header.frame_id, message.encoding) == ('head', 'mono8')
    assert list(message.data) == [1, 2, 3, 4]
    assert not listener.heard['clock']  # it was not asked for


def test_a_damaged_bag_gives_what_is_left(bag, listen, tmp_path, capsys):
    path, recorded = bag
    data = next(path.glob('*.mcap')).read_bytes()
    half = tmp_path / 'half.mcap'
    half.write_bytes(data[: len(data) // 2])
    listener = listen(raw=Image)
    code = main(['replay', str(half), '--topic', '/raw', '--rate', '10', '--json', '-'])
    assert code == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    sent = result['topics'][0]['sent']
    assert 0 < sent < len(RAW)
    until(lambda: len(listener.heard['raw']) == sent)
    assert_same(listener.data('raw'), [data for _, data in recorded['/raw'][:sent]])
    (warning,) = result['warnings']
    assert '/raw: damaged' in warning
    assert warning in output.err


def test_no_subscriber_is_waited_for_only_so_long(bag, listen, capsys):
    path, _ = bag
    listener = listen(jpeg=CompressedImage)  # reliable: not one of what is best effort
    began = time.monotonic()
    arguments = ['--topic', '/jpeg', '--rate', '20', '--wait', '0.3', '--json', '-']
    arguments += ['--reliability', 'best_effort']
    assert main(['replay', str(path), *arguments]) == 0
    assert 0.3 < time.monotonic() - began < 5
    result = json.loads(capsys.readouterr().out)
    assert result['topics'][0]['sent'] == len(JPEG)
    assert not listener.heard['jpeg']
    assert result['warnings'] == ['no one subscribes to /jpeg after 0.3 s: playing all the same']


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([], '2 topics have images, name one (--topic): /raw (sensor_msgs/msg/Image, 19'),
        (['--topic', '/front'], 'no topic /front; it has /raw (sensor_msgs/msg/Image'),
        (['--topic', '/raw', '/jpeg', '--as', '/a'], '--as has 1 topics for 2'),
        (['--topic', '/raw', '--as', 'front camera'], 'front camera'),
        (['--topic', '/raw', '--rate', '0'], '--rate is 0.0, expected a number above 0'),
        (['--topic', '/raw', '--clock', '-1'], '--clock is -1.0, expected more than 0'),
        (['--topic', '/raw', '--start', '9', '--wait', '0'], 'no image in this stretch of it'),
    ],
)
def test_bad_input_is_said_in_one_line(bag, capsys, arguments, said):
    assert main(['replay', str(bag[0]), *arguments]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('infinitevl replay: ')
    assert said in line


def test_the_node_takes_every_image_on_the_clock_of_the_bag(bag, checkpoint):
    path, _ = bag
    node = Path(get_package_prefix('infinitevl_ros'), 'lib/infinitevl_ros/infinitevl_node')
    parameters = {'use_sim_time': 'true', 'model': checkpoint, 'caption_period': 0.0}
    command = [sys.executable, str(node), '--ros-args']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    process = subprocess.Popen(command)
    listener, values = None, {}
    try:
        listener = Listener(diagnostics=DiagnosticArray)

        def newest():
            for data in listener.data('diagnostics')[-1:]:
                message = deserialize_message(data, DiagnosticArray)
                values['now'] = message.header.stamp.sec + message.header.stamp.nanosec / SECOND
                for status in message.status:
                    values.update({item.key: item.value for item in status.values})
            return values

        until(lambda: newest().get('state') == 'active', 60)
        arguments = ['--topic', '/raw', '--as', '/image', '--clock']
        assert main(['replay', str(path), *arguments]) == 0
        until(lambda: newest()['frames_taken'] == str(len(RAW)))
        assert newest()['frames_dropped'] == '0'
        assert values['now'] == pytest.approx(START / SECOND + 1.0)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(20)
        if listener:
            listener.close()
    assert code == 0


def test_a_damaged_message_is_left_out_and_told_of(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = 'sensor_msgs/msg/CompressedImage'
    with Writer(tmp_path / 'bag', version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/image/compressed', kind, typestore=store)
        for number in range(3):
            data = serialized(store, kind, START + number, number)
            writer.write(connection, START + number, data if number != 1 else b'\x28\xb5\x2f\xfd?')
    stream = Stream(tmp_path / 'bag', [], [], Part(0, float('inf')))
    assert [stamp - START for stamp, _, _ in stream] == [0, 2]
    assert stream.warnings == ['/image/compressed: 1 damaged messages left out']
