"""infinitevl_node: a camera topic in, captions and answers out.

One executor thread runs the callbacks, none of which waits; the engine's scheduler has the other
thread. Between them go frames (newest only), questions (a bounded queue) and futures.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from std_srvs.srv import Trigger

from infinitevl_ros.msg import Caption
from infinitevl_ros.srv import Query

from ..engine import (
    Outcome,
    QueueFullError,
    Sampling,
    Scheduler,
    StreamingEngine,
    VisualMemory,
)
from . import diagnostics, parameters
from .camera import ImageSubscription
from .images import TRANSPORTS

NANOSECONDS = 1_000_000_000
WARNING_PERIOD = 5.0  # seconds between warnings about bad frames


class InfiniteVLNode(Node):
    """The node. Raises ValueError (a CheckpointError among them) when it cannot start."""

    def __init__(self) -> None:
        super().__init__('infinitevl_node')
        parameters.declare(self)
        self._value = parameters.reader(self)
        self.engine = self._load_engine()
        self.memory = self.engine.new_memory()
        self._frame_id = ''
        self._caption_pending = False
        self._last_caption: int | None = None  # stamp of the newest frame in the caption before
        self.scheduler = Scheduler(
            self.engine, self._value('max_questions'), self._on_frame, self._on_frame_error
        )
        # Late joiners get the newest caption.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._captions = self.create_publisher(Caption, '~/captions', latched)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A service that awaits keeps a mutually exclusive group, the default, to itself.
        waiting = ReentrantCallbackGroup()
        self.create_service(Query, '~/query', self._on_query, callback_group=waiting)
        self.create_service(Trigger, '~/reset', self._on_reset, callback_group=waiting)
        transport = self._value('transport')
        self._decode = TRANSPORTS[transport][1]
        self.camera = ImageSubscription(
            self, transport, self._value('image_reliability'), self._on_image
        )
        # Steady: diagnostics go on when simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self.get_logger().info(
            f'ready: images from {self.camera.topic} ({transport}), questions at '
            f'{self.resolve_service_name("~/query")}'
        )

    def close(self) -> None:
        """End every question, then the node."""
        self.scheduler.close()
        self.destroy_node()

    def _load_engine(self) -> StreamingEngine:
        model, device = self._value('model'), self._value('device')
        if not model:
            raise ValueError(
                'no model: set the parameter "model" to a checkpoint folder (to try without one: '
                'infinitevl random-checkpoint FOLDER)'
            )
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        dtype = self._value('dtype')
        side = self._value('frame_size')
        self.get_logger().info(f'loading {Path(model).expanduser()} on {device}')
        began = time.monotonic()
        engine = StreamingEngine.from_checkpoint(
            model,
            device,
            None if dtype == 'auto' else getattr(torch, dtype),
            (side, side) if side else None,
        )
        self.get_logger().info(
            f'loaded {engine.name} in {time.monotonic() - began:.1f} s: frames of '
            f'{engine.frame_size[1]} x {engine.frame_size[0]} pixels, {engine.weights.dtype}'
        )
        return engine

    def _on_image(self, message: object) -> None:
        header = message.header
        stamp = _nanoseconds(header.stamp)
        if not stamp:
            # A camera that does not stamp its images: the time of arrival is the next best.
            stamp = self.get_clock().now().nanoseconds
        self._frame_id = header.frame_id
        self.scheduler.offer(self.memory, lambda: self._decode(message), stamp)

    def _on_frame(self, memory: VisualMemory) -> None:
        """On the engine's thread: captions are due by the stamps of the frames."""
        period = int(self._value('caption_period') * NANOSECONDS)
        if self._last_caption is None:
            self._last_caption = memory.first_stamp
        elapsed = memory.newest_stamp - self._last_caption
        # Stamps that jump back (a bag that loops) are a new stretch of time.
        due = elapsed >= period or elapsed < 0
        if not period or not due or self._caption_pending:
            return
        first, self._last_caption = self._last_caption, memory.newest_stamp
        frame_id = self._frame_id

        def publish(outcome: Outcome) -> None:
            self._caption_pending = False
            if not outcome.success:
                self.get_logger().warning(f'no caption: {outcome.message}')
                return
            caption = Caption(
                text=outcome.text,
                first_stamp=_time(min(first, outcome.newest_stamp)),
                last_stamp=_time(outcome.newest_stamp),
                frames_seen=outcome.frames,
                seconds=outcome.seconds,
            )
            caption.header.stamp = caption.last_stamp
            caption.header.frame_id = frame_id
            self._captions.publish(caption)

        try:
            self._ask(self._value('caption_prompt'), publish)
            self._caption_pending = True
        except QueueFullError as error:
            self.get_logger().warning(f'no caption: {error}')

    def _on_frame_error(self, memory: VisualMemory, error: Exception) -> None:
        self.get_logger().warning(
            f'{self.camera.topic}: frame refused: {error}', throttle_duration_sec=WARNING_PERIOD
        )

    async def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        outcome = await self._answered(request.question)
        response.success = outcome.success
        response.answer = outcome.text
        response.message = outcome.message
        response.stamp = _time(outcome.newest_stamp)
        response.frames_seen = outcome.frames
        response.tokens = outcome.tokens
        response.seconds = outcome.seconds
        return response

    async def _answered(self, question: str) -> Outcome:
        if not question.strip():
            return Outcome(False, message='the question is empty')
        if not self.memory.frames:
            return Outcome(
                False,
                message=f'no frame seen yet on {self.camera.topic} '
                f'({self.camera.publishers} publishers)',
            )
        future, done = self._future()
        try:
            self._ask(question, done)
        except QueueFullError as error:
            return Outcome(False, message=f'busy: {error}')
        return await future

    async def _on_reset(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        future, done = self._future()

        def reset() -> None:
            frames = self.memory.frames
            self.memory.reset()
            self._last_caption = None
            done(frames)

        self.scheduler.call(reset)
        response.success, response.message = True, f'forgot {await future} frames'
        return response

    def _ask(self, question: str, on_done: Callable[[Outcome], None]) -> None:
        self.scheduler.ask(
            self.memory,
            question,
            on_done,
            sampling=Sampling(max_tokens=self._value('max_tokens')),
            timeout=self._value('query_timeout'),
        )

    def _future(self) -> tuple[Future, Callable[[object], None]]:
        """A future, and a function for the engine's thread that completes it."""
        future = Future()

        def done(result: object) -> None:
            future.set_result(result)
            # Without this an idle executor may sleep on for seconds (rclpy issue 1462).
            self.executor.wake()

        return future, done

    def _publish_diagnostics(self) -> None:
        array = DiagnosticArray(status=[diagnostics.status(self)])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def _nanoseconds(stamp: Time) -> int:
    return stamp.sec * NANOSECONDS + stamp.nanosec


def _time(stamp: int | None) -> Time:
    """The message of a stamp in nanoseconds; zero when there is none."""
    sec, nanosec = divmod(stamp or 0, NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 1 when it cannot start."""
    node = None
    try:
        rclpy.init(args=arguments)
        node = InfiniteVLNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, ParameterException) as error:
        print(f'infinitevl_node: {error}', file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C (launch sends one too) must not break into the shutdown.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0
