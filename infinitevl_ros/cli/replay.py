"""`infinitevl replay`: the images of a bag or a video over DDS, where `ros2 bag play` is not."""

from __future__ import annotations

import argparse
import array
import heapq
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..media.source import Shot, Source, SourceError, open_source
from . import output

NANOSECONDS = 1_000_000_000
# Of a video's first image [ns]: a stamp of 0 says in ROS that there is none.
FIRST_STAMP = NANOSECONDS
CLOCK_RATE = 40.0  # Hz, as that of ros2 bag play
# Subscribers find a publisher a little later than it finds them [s].
SETTLING = 0.5
DEPTH = 10
EPILOG = """examples:
  infinitevl replay office.mcap --topic /camera/image_raw --as /image --clock
  infinitevl replay patrol.mp4 --rate 2 --loop

Images of a bag are sent byte for byte as they were recorded, with their own stamps. Those of a
video are rgb8 on the topic image, stamped by their time in it, the first with 1 s.
/clock tells the time of recording. Times count from the first image. With --loop stamps and clock
begin again, as the parameter time_jump of infinitevl_node takes it.
"""


@dataclass
class Topic:
    """A topic of a file and what has been sent of it; `name` is where, `topic` '' in a video."""

    topic: str
    name: str
    type: str = 'sensor_msgs/msg/Image'
    expected: int | None = None
    sent: int = 0
    bytes: int = 0


@dataclass
class Played:
    """What was sent, as --json writes it: times in seconds, of the wall but for `stream_seconds`.

    `latest` is how much too late an image was sent at worst.
    """

    source: str
    kind: str
    topics: list[Topic]
    passes: int = 0
    seconds: float = 0.0
    stream_seconds: float = 0.0
    latest: float = 0.0
    clock_messages: int = 0
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A stretch of a stream [ns], counted from its first image."""

    start: int
    length: float  # infinite: to the end


class Stream:
    """The messages of a file in the order they were recorded; each iteration begins anew.

    Gives the time of recording [ns], the place of the topic in `topics`, and a message: serialized
    where the file is a bag, a Shot else. `warnings` tells what could not be read.
    """

    def __init__(self, path: Path, topics: list[str], names: list[str], part: Part):
        """Raises SourceError, and ValueError where topics and names do not go together."""
        sources = [open_source(path, topic) for topic in topics or ['']]
        if names and len(names) != len(sources):
            raise ValueError(f'--as has {len(names)} topics for {len(sources)}')
        self.kind, self._part = sources[0].kind, part
        self.warnings: list[str] = []
        self.topics = [
            Topic(source.topic, name or source.topic or 'image', expected=source.expected)
            for source, name in zip(sources, names or [''] * len(sources), strict=True)
        ]
        if self.kind == 'bag':
            from ..media.bag import DECODERS
            from ..media.bag_storage import Bag

            self._bag = Bag(path)
            self._recorded = [
                next(t for t in self._bag.topics if t.name == one.topic and t.type in DECODERS)
                for one in self.topics
            ]
            for one, recorded in zip(self.topics, self._recorded, strict=True):
                one.type = recorded.type
        else:
            self._source = sources[0]

    def __iter__(self) -> Iterator[tuple[int, int, bytes | Shot]]:
        self.warnings.clear()
        if self.kind == 'bag':
            parts = (self._messages(number) for number in range(len(self.topics)))
            messages = heapq.merge(*parts, key=lambda message: message[0])
        else:
            messages = self._shots(self._source)
        first = None
        for message in messages:
            first = message[0] if first is None else first
            if message[0] - first >= self._part.start + self._part.length:
                break
            if message[0] - first >= self._part.start:
                yield message

    def _shots(self, source: Source) -> Iterator[tuple[int, int, Shot]]:
        for shot in source:
            stamp = FIRST_STAMP + shot.stamp
            yield stamp, 0, Shot(stamp, shot.pixels)
        self.warnings += source.warnings

    def _messages(self, number: int) -> Iterator[tuple[int, int, bytes]]:
        from rosbags.typesys import Stores, get_typestore

        from ..media.bag_storage import uncompressed
        from ..media.cut import Broken

        topic, damaged = self._recorded[number], 0
        store = get_typestore(Stores.ROS2_JAZZY)
        try:
            for stamp, data in self._bag.messages(topic):
                try:
                    if self._bag.is_ros1:
                        message = bytes(store.ros1_to_cdr(data, topic.type))
                    else:
                        message = bytes(uncompressed(data))
                except Exception:  # on damaged bytes it can fail in any way
                    damaged += 1
                    continue
                yield stamp, number, message
        except Broken as broken:
            self.warnings.append(f'{topic.name}: damaged, the rest is missing: {broken}')
        if damaged:
            self.warnings.append(f'{topic.name}: {damaged} damaged messages left out')


class Player:
    """Publishes a stream's messages in time; what has been sent stands in `played`."""

    def __init__(self, stream: Stream, played: Played, reliability: str, clock: float | None):
        """`clock` is how often /clock is told at least [Hz]; None: not at all."""
        import rclpy
        from rclpy.exceptions import InvalidTopicNameException
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from rclpy.signals import SignalHandlerOptions
        from rosgraph_msgs.msg import Clock
        from sensor_msgs import msg

        self._stream, self._played = stream, played
        self._message, self._clock_message = msg.Image, Clock
        # Ctrl-C interrupts Python, and what was sent can still be acknowledged.
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('infinitevl_replay', context=self._context)
        qos = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy[reliability.upper()])
        try:
            self._publishers = [
                self._node.create_publisher(getattr(msg, t.type.split('/')[-1]), t.name, qos)
                for t in stream.topics
            ]
        except InvalidTopicNameException as error:
            self.close()
            raise ValueError(' '.join(str(error).split())) from None
        self._clock = self._node.create_publisher(Clock, '/clock', 10) if clock else None
        self._tick = 1 / clock if clock else math.inf

    def close(self) -> None:
        import rclpy

        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def wait(self, seconds: float) -> bool:
        """Wait until someone subscribes to one of the topics; false when no one does in time."""
        deadline = time.monotonic() + seconds
        while not any(publisher.get_subscription_count() for publisher in self._publishers):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        time.sleep(SETTLING)
        return True

    def play(self, rate: float, loop: bool) -> None:
        """Send everything, `rate` times as fast as it was recorded. Raises SourceError."""
        begin = 0.0
        try:
            while loop or not self._played.passes:
                begin = self._pass(begin, rate)
                self._played.passes += 1
        finally:
            self._acknowledge()

    def _pass(self, begin: float, rate: float) -> float:
        """One pass, not before a steady time [s]; returns that for the next."""
        first = last = None
        count, played = 0, self._played
        total = sum(topic.expected or 0 for topic in self._stream.topics) or None
        with tqdm(self._stream, total=total, unit=' images', disable=None) as bar:
            for stamp, number, message in bar:
                if last is None:
                    # Only now that there is a message: to open a file may take long.
                    first = last = stamp
                    begin = max(begin, time.monotonic())
                due = begin + (stamp - first) / NANOSECONDS / rate
                self._wait_until(due, first, stamp, rate)
                if self._clock:
                    self._tell(stamp)
                self._send(number, message)
                played.latest = max(played.latest, time.monotonic() - due)
                played.stream_seconds += (stamp - last) / NANOSECONDS
                last = stamp
                count += 1
        if last is None:
            reasons = [f'{self._played.source}: no image in this stretch of it']
            raise SourceError(': '.join([*reasons, *self._stream.warnings]))
        # The next first image comes after the last as one comes after another.
        length = (last - first) / NANOSECONDS * count / (count - 1) if count > 1 else 1.0
        return begin + length / rate

    def _wait_until(self, due: float, first: int, stamp: int, rate: float) -> None:
        """Until the steady time `due` [s], that of `stamp`; tells the clock, from `first` on."""
        while (left := due - time.monotonic()) > 0:
            if left <= self._tick:
                time.sleep(left)
                return
            time.sleep(self._tick)
            left = due - time.monotonic()
            self._tell(max(first, stamp - max(0, round(left * rate * NANOSECONDS))))

    def _tell(self, stamp: int) -> None:
        message = self._clock_message()
        message.clock.sec, message.clock.nanosec = divmod(stamp, NANOSECONDS)
        self._clock.publish(message)
        self._played.clock_messages += 1

    def _send(self, number: int, message: bytes | Shot) -> None:
        topic = self._stream.topics[number]
        if isinstance(message, Shot):
            message = self._image(message)
            topic.bytes += len(message.data)
        else:
            topic.bytes += len(message)
        self._publishers[number].publish(message)
        topic.sent += 1

    def _image(self, shot: Shot) -> Any:
        height, width, _ = shot.pixels.shape
        message = self._message(height=height, width=width, encoding='rgb8', step=3 * width)
        message.header.frame_id = 'camera'
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(shot.stamp, NANOSECONDS)
        # rclpy takes an array as it is; other sequences it converts number by number.
        message.data = array.array('B', shot.pixels.tobytes())
        return message

    def _acknowledge(self) -> None:
        """Writers keep the newest images until they are acknowledged: do not leave before."""
        from rclpy.duration import Duration

        for publisher in self._publishers:
            publisher.wait_for_all_acked(Duration(seconds=2))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument('source', type=Path, metavar='BAG|VIDEO', help='or a folder of images')
    parser.add_argument(
        '--topic', nargs='+', action='extend', default=[], help='of a bag; none: its only one'
    )
    parser.add_argument(
        '--as', nargs='+', action='extend', default=[], dest='names', metavar='TOPIC',
        help='where to publish instead, one for each',
    )  # fmt: skip
    parser.add_argument('--rate', type=float, default=1.0, help='speed (default: %(default)s)')
    parser.add_argument('--loop', action='store_true', help='begin again at the end, until Ctrl-C')
    parser.add_argument(
        '--clock', nargs='?', type=float, const=CLOCK_RATE, metavar='HZ',
        help='publish /clock with every image, and this often between them (HZ: %(const)s)',
    )  # fmt: skip
    parser.add_argument(
        '--reliability', choices=('reliable', 'best_effort'), default='reliable',
        help='default: %(default)s',
    )  # fmt: skip
    parser.add_argument(
        '--start', type=float, default=0.0, metavar='S', help='leave out S seconds'
    )
    parser.add_argument(
        '--duration', type=float, default=math.inf, metavar='S', help='end after S seconds of it'
    )
    parser.add_argument(
        '--wait', type=float, default=10.0, metavar='S',
        help='longest wait for a subscriber (default: %(default)s)',
    )  # fmt: skip
    output.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Play it; tells what was sent, also when interrupted. Raises ValueError."""
    _check(arguments)
    part = Part(round(arguments.start * NANOSECONDS), arguments.duration * NANOSECONDS)
    path = arguments.source.expanduser()
    output.check_outputs(arguments.json, inputs=(path,))
    stream = Stream(path, arguments.topic, arguments.names, part)
    played = Played(str(path), stream.kind, stream.topics)
    player = Player(stream, played, arguments.reliability, arguments.clock)
    began = time.monotonic()
    try:
        if not player.wait(arguments.wait):
            names = ', '.join(topic.name for topic in stream.topics)
            played.warnings.append(
                f'no one subscribes to {names} after {arguments.wait:g} s: playing all the same'
            )
            print(f'warning: {played.warnings[-1]}', file=sys.stderr)
        began = time.monotonic()
        player.play(arguments.rate, arguments.loop)
    except KeyboardInterrupt:
        played.interrupted = True
    finally:
        played.seconds = time.monotonic() - began
        player.close()
    for warning in stream.warnings:
        played.warnings.append(warning)
        print(f'warning: {warning}', file=sys.stderr)
    if arguments.json != output.STDOUT:
        sent = ', '.join(f'{topic.sent} images on {topic.name}' for topic in stream.topics)
        print(
            f'Sent {sent} in {played.seconds:.1f} s ({played.stream_seconds:.1f} s of stream), '
            f'at worst {played.latest * 1e3:.0f} ms late.'
        )
    if arguments.json:
        output.write_json(arguments.json, asdict(played))
    return 130 if played.interrupted else 0


def _check(arguments: argparse.Namespace) -> None:
    for name, value, fits, wanted in (
        ('rate', arguments.rate, 0 < arguments.rate < math.inf, 'a number above 0'),
        ('clock', arguments.clock, arguments.clock is None or 0 < arguments.clock <= 1000,
         'more than 0, to 1000 Hz'),
        ('start', arguments.start, 0 <= arguments.start < math.inf, '0 or more'),
        ('duration', arguments.duration, arguments.duration > 0, 'more than 0'),
        ('wait', arguments.wait, 0 <= arguments.wait < math.inf, '0 or more'),
    ):  # fmt: skip
        if not fits:
            raise ValueError(f'--{name} is {value}, expected {wanted}')
