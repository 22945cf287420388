"""What `infinitevl doctor` hears of ROS 2: cameras with their rates, the node's diagnostics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from ..media.images import ImageError, from_compressed, from_image
from .checks import OK, PROBLEM, WARNING, Finding, size
from .ros_checks import PROFILE, SEGMENT, profile_variable

# Others are found, and the node's diagnostics (once a second) heard, within the first; where
# nothing has been found, the second is waited for [s].
DISCOVERY, LONGEST_DISCOVERY = 2.0, 4.0
MEASUREMENT = 2.0  # seconds
MOST_MEASURED = 4
TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
CAPTION = 'infinitevl_ros/msg/Caption'
HARDLY_ANY = 'start the camera with the same ROS_DOMAIN_ID and discovery range; ros2 topic list -t'


def listen(topic: str) -> Iterator[Finding]:
    """The image topics alive and the nodes of this package; `topic` '' measures up to four."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node(
        'infinitevl_doctor', context=context, enable_rosout=False, start_parameter_services=False
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield from _Listener(node, executor).findings(topic)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


@dataclass
class _Measurement:
    """Messages of one topic: how many, when the first and the last came [s], and the last."""

    messages: int = 0
    first: float = 0.0
    last: float = 0.0
    data: bytes = b''

    def add(self, data: bytes) -> None:
        self.last, self.data = time.monotonic(), data
        self.first = self.first or self.last
        self.messages += 1

    @property
    def rate(self) -> float | None:
        """Messages a second; None where there were fewer than two."""
        return (self.messages - 1) / (self.last - self.first) if self.messages > 1 else None


class _Listener:
    def __init__(self, node: Node, executor: SingleThreadedExecutor):
        self.node, self.executor = node, executor
        self.statuses: dict[str, DiagnosticStatus] = {}

    def findings(self, topic: str) -> Iterator[Finding]:
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_status, 10)
        self._spin(DISCOVERY)
        wanted = f'/{topic.lstrip("/")}' if topic else ''
        self._spin(
            LONGEST_DISCOVERY - DISCOVERY,
            lambda: wanted in self.alive if topic else bool(self.alive),
        )
        alive = self.alive
        if topic and wanted not in alive:
            yield self._missing(wanted, alive)
        elif not alive:
            yield Finding(WARNING, 'image topics', 'no one publishes images here', HARDLY_ANY)
        measured = [name for name in alive if not topic or name == wanted][:MOST_MEASURED]
        results = self._measure({name: alive[name] for name in measured})
        for name, result in results.items():
            yield from self._of_topic(name, alive[name], result, bool(topic))
        if others := sorted(alive.keys() - set(measured)):
            found = f'not measured: {", ".join(others)}'
            yield Finding(OK, 'image topics', found, values={'topics': others})
        yield from self._of_nodes()

    @property
    def alive(self) -> dict[str, str]:
        """Topics that someone publishes images on, and their types; no overlays of captions."""
        topics = dict(self.node.get_topic_names_and_types())
        found = {}
        for name, types in sorted(topics.items()):
            below = name.rpartition('/')[0]
            if name.endswith('/overlay') and CAPTION in topics.get(f'{below}/captions', ()):
                continue
            kinds = [kind for kind in types if kind in TYPES]
            if kinds and self.node.count_publishers(name):
                found[name] = kinds[0]
        return found

    def _spin(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not enough():
            self.executor.spin_once(min(0.1, max(0.0, deadline - time.monotonic())))

    def _on_status(self, message: DiagnosticArray) -> None:
        self.statuses |= {status.name: status for status in message.status}

    def _missing(self, wanted: str, alive: dict[str, str]) -> Finding:
        types = dict(self.node.get_topic_names_and_types()).get(wanted, [])
        others = [kind for kind in types if kind not in TYPES]
        found = f'{wanted}: no one publishes there'
        if others and self.node.count_publishers(wanted):
            found = f'{wanted}: is {", ".join(others)}, expected {" or ".join(TYPES)}'
        if not alive:
            found += '; nor images anywhere else'
            return Finding(PROBLEM, 'image topic', found, HARDLY_ANY)
        found += f'; images are on {", ".join(alive)}'
        fix = f'--topic with one of these, image:={next(iter(alive))} for the node'
        return Finding(PROBLEM, 'image topic', found, fix)

    def _measure(self, topics: dict[str, str]) -> dict[str, _Measurement]:
        results = {name: _Measurement() for name in topics}
        subscriptions = []
        for name, kind in topics.items():
            qos = QoSProfile(depth=5, reliability=_offered(self._publishers(name)))
            # Raw: to count what comes must cost less than it takes to come.
            subscriptions.append(
                self.node.create_subscription(TYPES[kind], name, results[name].add, qos, raw=True)
            )
        if topics:
            self._spin(MEASUREMENT)
        for subscription in subscriptions:
            self.node.destroy_subscription(subscription)
        return results

    def _publishers(self, topic: str) -> list[TopicEndpointInfo]:
        return self.node.get_publishers_info_by_topic(topic)

    def _of_topic(
        self, topic: str, kind: str, result: _Measurement, asked: bool
    ) -> Iterator[Finding]:
        """One finding with all figures, and one for each thing that is wrong."""
        publishers = self._publishers(topic)
        best_effort = _offered(publishers) == ReliabilityPolicy.BEST_EFFORT
        names = ', '.join(sorted({_name(publisher) for publisher in publishers}))
        reliability = 'best effort' if best_effort else 'reliable'
        if any(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers):
            reliability += ', transient local'
        values = {
            'topic': topic,
            'type': kind,
            'publishers': names,
            'qos': reliability,
            'messages': result.messages,
            'rate': result.rate,
        }
        found = (
            f'{topic} ({kind.split("/")[-1]}) by {names or "a node that has left"}, {reliability}'
        )
        wrong: list[tuple[str, str, str]] = []
        if result.messages:
            text, refused, count = _picture(result.data, kind, values)
            rate = f'{result.rate:.1f} Hz' if result.rate else 'one message'
            found += f': {rate} over {MEASUREMENT:.0f} s{text}'
            if refused:
                wrong.append((PROBLEM, refused, 'see Topics in README.md for the encodings'))
        else:
            count = 0
            found += f': nothing came in {MEASUREMENT:.0f} s'
            wrong.append(
                (
                    PROBLEM if asked else WARNING,
                    'no image came',
                    'is the camera running, or the bag paused? ros2 topic hz ' + topic,
                )
            )
        if best_effort and count > SEGMENT and not os.environ.get(profile_variable()):
            wrong.append(
                (
                    WARNING,
                    f'best effort with images of {size(count)}: Fast DDS loses most of those over '
                    f'{size(SEGMENT)}',
                    f'start the camera reliable, or with {profile_variable()}='
                    f'$(ros2 pkg prefix --share infinitevl_ros)/config/{PROFILE}',
                )
            )
        if len(publishers) > 1:
            said = f'{len(publishers)} publishers: their images mix in one memory'
            wrong.append((WARNING, said, 'a topic for each camera, and the parameter cameras'))
        level, said, fix = wrong[0] if wrong else (OK, '', '')
        yield Finding(level, 'image topic', f'{found}; {said}' if said else found, fix, values)
        for level, said, fix in wrong[1:]:
            yield Finding(level, 'image topic', f'{topic}: {said}', fix)

    def _of_nodes(self) -> Iterator[Finding]:
        """The nodes of this package, by what they tell of themselves."""
        engines = [
            (name.removesuffix(': engine'), _values(status))
            for name, status in self.statuses.items()
            if name.endswith(': engine') and {'state', 'model'} <= _values(status).keys()
        ]
        if not engines:
            silent = [n for n in self.node.get_node_names() if n == 'infinitevl_node']
            if silent:
                yield Finding(
                    WARNING,
                    'node',
                    'infinitevl_node is there but nothing of it came on /diagnostics',
                    'see its log; a node that was killed is still listed for some seconds',
                )
            else:
                yield Finding(OK, 'node', 'no infinitevl_node is running')
        for name, values in engines:
            status = self.statuses[f'{name}: engine']
            device = f' on {values["device"]}' if 'device' in values else ''
            found = f'/{name} is {values["state"]}, model {values["model"]}{device}'
            if status.message != values['state']:
                found += f': {status.message}'
            state = values['state']
            step = {'unconfigured': 'configure', 'inactive': 'activate'}.get(state)
            fix = f'ros2 lifecycle set /{name} {step}' if step else "the node's log says more"
            yield _by_level(status, 'node', found, fix, values)
            for other, status in self.statuses.items():
                if other.startswith(f'{name}: ') and not other.endswith(': engine'):
                    yield self._of_stream(other, status)

    @staticmethod
    def _of_stream(name: str, status: DiagnosticStatus) -> Finding:
        values = _values(status)
        found = (
            f'/{name}, {values.get("topic", status.hardware_id)}: {status.message}, '
            f'{values.get("frames_taken", "?")} frames taken, '
            f'{values.get("frames_dropped", "?")} dropped'
        )
        fix = "the node's log says more"
        if values.get('publishers') == '0':
            fix = 'start the camera, or tell the node its topic: --ros-args -r image:=TOPIC'
        return _by_level(status, 'node', found, fix, values)


def _by_level(
    status: DiagnosticStatus, name: str, found: str, fix: str, values: dict[str, Any]
) -> Finding:
    if status.level == DiagnosticStatus.OK:
        return Finding(OK, name, found, values=values)
    level = WARNING if status.level == DiagnosticStatus.WARN else PROBLEM
    return Finding(level, name, found, fix, values)


def _picture(data: bytes, kind: str, values: dict[str, Any]) -> tuple[str, str, int]:
    """Of a serialized image: its figures in words, why it cannot be read or '', its bytes."""
    message = deserialize_message(data, TYPES[kind])
    count = len(message.data)
    layout = getattr(message, 'encoding', None) or message.format
    values |= {'bytes': count, 'format': layout}
    refused, shape = '', ''
    try:
        pixels = (from_image if kind.endswith('/Image') else from_compressed)(message)
    except ImageError as error:
        refused = str(error)
    else:
        height, width = pixels.shape[:2]
        shape = f'{width} x {height} '
        values |= {'width': width, 'height': height}
    text = f', {shape}{layout}, {size(count)}'
    if not (message.header.stamp.sec or message.header.stamp.nanosec):
        text += ', without stamps'
    return text, refused, count


def _offered(publishers: list[TopicEndpointInfo]) -> ReliabilityPolicy:
    """The reliability that every publisher matches."""
    policies = {publisher.qos_profile.reliability for publisher in publishers}
    best_effort = ReliabilityPolicy.BEST_EFFORT
    return best_effort if best_effort in policies else ReliabilityPolicy.RELIABLE


def _name(publisher: TopicEndpointInfo) -> str:
    return f'{publisher.node_namespace.rstrip("/")}/{publisher.node_name}'


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {item.key: item.value for item in status.values}
