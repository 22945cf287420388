"""A running node over ROS: its camera's images, its captions and diagnostics, and ~/ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.validate_full_topic_name import validate_full_topic_name

from infinitevl_ros.action import Ask
from infinitevl_ros.msg import Caption as CaptionMessage

from ..ros.subscription import TRANSPORTS, ImageSubscription
from .feed import Board, Caption, Feed, Reply, State

# Diagnostics come once a second; a node that has sent none for so long [s] is gone. DDS itself
# notices a node that crashed only after 20 s.
SILENCE = 5.0
FAREWELL = 0.5  # seconds for the node to hear that its answers are not wanted any more
COMPRESSED = '/compressed'
LEVELS = {DiagnosticStatus.OK: 'ok', DiagnosticStatus.WARN: 'wait'}


class RosFeed(Feed):
    """Attaches to the node of a fully qualified name, whenever it is there.

    `camera` names one of a node with several. All ROS work is done on one thread with an executor
    and a context of its own.
    """

    def __init__(self, node: str = '/infinitevl_node', camera: str = ''):
        """Raises ValueError for what can be no node's name."""
        self._target = f'/{node.strip("/")}'
        self._camera = camera
        below = f'{self._target}/{camera}' if camera else self._target
        try:
            validate_full_topic_name(f'{below}/captions')
        except rclpy.exceptions.InvalidTopicNameException as error:
            reason, *_ = str(error).splitlines()
            raise ValueError(f'--node {node}, --camera "{camera}": {reason}') from None
        self.name = below
        self._values: dict[str, str] = {}
        self._heard = float('-inf')
        self._cameras: set[str] = set()
        self._levels: list[tuple[bytes, str]] = []
        self._counted: tuple[float, int] | None = None
        self._rate: float | None = None
        self._asked: set[_Asked] = set()
        self._images: ImageSubscription | None = None
        self._topic = self._image_fault = ''
        self._thread: threading.Thread | None = None

        self._context = rclpy.Context()
        # Ctrl-C is the server's.
        rclpy.init(context=self._context)
        self._node = rclpy.create_node(
            'infinitevl_live',
            context=self._context,
            enable_rosout=False,
            start_parameter_services=False,
        )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(
            CaptionMessage, f'{below}/captions', self._on_caption, latched
        )
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._client = ActionClient(self._node, Ask, f'{self._target}/ask')
        # Steady: it goes on when simulated time stands still.
        self._node.create_timer(
            1.0, self._look_after, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def start(self, board: Board) -> None:
        self._board = board
        self._thread = threading.Thread(target=self._spin, name='live', daemon=True)
        self._thread.start()

    def state(self) -> State:
        if time.monotonic() - self._heard > SILENCE:
            return State(f'no node at {self._target}')
        if self._camera not in self._cameras and '' not in self._cameras and self._cameras:
            names = ', '.join(sorted(self._cameras))
            return State(f'choose a camera with --camera: {self._target} has {names}', 'error')
        values = dict(self._values)
        level, message = max(self._levels, default=(DiagnosticStatus.WARN, 'no diagnostics yet'))
        if level == DiagnosticStatus.OK and self._image_fault:
            level, message = DiagnosticStatus.WARN, self._image_fault
        answered = int(values.get('questions_answered', 0))
        return State(
            message,
            LEVELS.get(level, 'error'),
            values.get('model'),
            self._rate,
            int(values['frames_in_memory']) if 'frames_in_memory' in values else None,
            float(values['answer_ms']) / 1e3 if answered else None,
        )

    def ask(
        self, question: str, on_piece: Callable[[str], None], on_done: Callable[[Reply], None]
    ) -> Callable[[], None]:
        if not self._client.server_is_ready():
            raise ValueError(f'no node at {self._target}')
        asked = _Asked(on_piece, on_done)
        self._asked.add(asked)
        self._on_executor(self._send, asked, question)
        return lambda: self._on_executor(self._cancel, asked)

    def close(self) -> None:
        # The node need not go on for those who cannot hear it any more.
        for asked in list(self._asked):
            self._on_executor(self._cancel, asked)
        deadline = time.monotonic() + FAREWELL
        while self._asked and self._thread is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._executor.shutdown(timeout_sec=0.5)
        if self._thread is not None:
            self._thread.join(0.5)
        self._client.destroy()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass
        except Exception as error:
            self._board.fail(error)

    def _on_executor(self, function: Callable[..., None], *arguments: object) -> None:
        if self._context.ok():
            self._executor.create_task(function, *arguments)

    # On the executor's thread from here on.

    def _send(self, asked: _Asked, question: str) -> None:
        if asked.cancelled:  # the executor may run the later task first
            self._end(asked, Reply(False, '', 'cancelled'))
            return
        try:
            future = self._client.send_goal_async(
                Ask.Goal(question=question, camera=self._camera, client=self._node.get_name()),
                lambda message: asked.on_piece(message.feedback.text),
            )
        except Exception as error:  # a question that ROS cannot send ends nothing else
            self._end(asked, Reply(False, '', str(error)))
            return
        future.add_done_callback(lambda done: self._on_accepted(asked, done))

    def _on_accepted(self, asked: _Asked, future: rclpy.Future) -> None:
        asked.handle = future.result()
        if not asked.handle.accepted:
            self._end(asked, Reply(False, '', 'the node refused the question'))
            return
        if asked.cancelled:
            asked.handle.cancel_goal_async()
        asked.handle.get_result_async().add_done_callback(
            lambda done: self._on_result(asked, done.result().result)
        )

    def _on_result(self, asked: _Asked, result: Ask.Result) -> None:
        self._end(
            asked,
            Reply(
                result.success, result.answer, result.message, result.seconds, result.frames_seen
            ),
        )

    def _cancel(self, asked: _Asked) -> None:
        if asked in self._asked:
            asked.cancelled = True
            if asked.handle is not None:
                asked.handle.cancel_goal_async()

    def _end(self, asked: _Asked, reply: Reply) -> None:
        if asked in self._asked:
            self._asked.remove(asked)
            asked.on_done(reply)

    def _look_after(self) -> None:
        """Once a second: what a node that has gone leaves behind."""
        for asked in list(self._asked):
            silent = time.monotonic() - max(self._heard, asked.began) > SILENCE
            if silent or not self._client.server_is_ready():
                self._end(asked, Reply(False, '', f'the node {self._target} is gone'))

    def _on_caption(self, message: CaptionMessage) -> None:
        self._board.say(Caption(_seconds(message.last_stamp), message.text))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = f'{self._target[1:]}: '
        parts = {
            status.name.removeprefix(prefix): status
            for status in message.status
            if status.name.startswith(prefix)
        }
        if 'engine' not in parts:
            return
        self._heard = time.monotonic()
        self._cameras = {'' if name == 'stream' else name for name in parts.keys() - {'engine'}}
        mine = [parts['engine']]
        stream = parts.get(self._camera or 'stream')
        if stream is not None:
            mine.append(stream)
        values = {item.key: item.value for status in mine for item in status.values}
        if stream is not None:
            self._count(int(values['frames_taken']))
            self._subscribe(values['topic'])
        self._values = values
        self._levels = [(status.level, status.message) for status in mine]

    def _count(self, taken: int) -> None:
        now = time.monotonic()
        if self._counted is not None and taken >= self._counted[1]:
            before, count = self._counted
            self._rate = (taken - count) / max(now - before, 1e-3)
        self._counted = now, taken

    def _subscribe(self, topic: str) -> None:
        """To the images that the node takes; another topic when it was started anew."""
        if topic == self._topic:
            return
        self._topic = topic
        if self._images is not None:
            self._images.destroy()
        transport = 'compressed' if topic.endswith(COMPRESSED) else 'raw'
        decode = TRANSPORTS[transport][1]

        def on_image(message: object) -> None:
            if not self._board.wants_picture:
                return
            try:
                self._board.show(decode(message))
                self._image_fault = ''
            except ValueError as error:
                self._image_fault = f'a picture that cannot be shown: {error}'

        self._images = ImageSubscription(
            self._node, topic.removesuffix(COMPRESSED), transport, 'auto', on_image
        )


class _Asked:
    """A question on its way; `handle` is the goal's, once the node has it."""

    def __init__(self, on_piece: Callable[[str], None], on_done: Callable[[Reply], None]):
        self.on_piece, self.on_done = on_piece, on_done
        self.began = time.monotonic()
        self.handle = None
        self.cancelled = False


def _seconds(stamp: object) -> float:
    return stamp.sec + stamp.nanosec * 1e-9
