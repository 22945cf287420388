"""What the node tells of itself: /diagnostics once a second, a line in the log once a minute."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType

from ..engine.tickets import FrameCounts

if TYPE_CHECKING:
    from ..engine import Scheduler
    from .camera import Camera
    from .node import InfiniteVLNode
    from .subscription import ImageSubscription

PERIOD = 1.0  # seconds
LOG_PERIOD = 60.0  # seconds
SILENCE = 5.0  # seconds without an image that are worth a warning


class Diagnostics:
    """Publishes the state of the engine and of each camera; warns of what keeps frames away."""

    def __init__(self, node: InfiniteVLNode):
        self._node = node
        self._streams = [_Stream(node, camera) for camera in node.cameras]
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # Steady: they go on when simulated time stands still.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(PERIOD, self._publish, clock=clock)
        node.create_timer(LOG_PERIOD, self._log, clock=clock)
        self._logged: dict[str, FrameCounts] = {}
        self._answers_logged = 0
        self._counted: Scheduler | None = None

    def _publish(self) -> None:
        array = DiagnosticArray(status=[self._engine(), *(s.status() for s in self._streams)])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _engine(self) -> DiagnosticStatus:
        node, scheduler, engine = self._node, self._node.scheduler, self._node.engine
        values = {'state': node.state, 'model': node.value('model') or 'models/tiny'}
        if engine and scheduler:
            values |= {
                'model': engine.name,
                'device': engine.weights.device,
                'questions_waiting': scheduler.waiting,
                'questions_answered': scheduler.answers,
                'answer_ms': f'{scheduler.answer_seconds * 1e3:.0f}',
                'watches': len(node.watches),
            }
            if (used := engine.gpu_memory) is not None:
                values['gpu_memory_bytes'] = used
        level, message = DiagnosticStatus.OK, node.state
        if node.failure:
            level, message = DiagnosticStatus.ERROR, node.failure
        elif node.state != 'active':
            level = DiagnosticStatus.WARN
        return _status(node, 'engine', level, message, values['model'], values)

    def _log(self) -> None:
        """A line for each camera on what the last minute brought."""
        node = self._node
        if node.scheduler is None:
            return
        if node.scheduler is not self._counted:  # a new one counts from 0
            self._counted, self._logged, self._answers_logged = node.scheduler, {}, 0
        answers = node.scheduler.answers - self._answers_logged
        self._answers_logged = node.scheduler.answers
        for camera in node.cameras:
            now = replace(node.scheduler.counts(camera.memory))
            before = self._logged.get(camera.name, FrameCounts())
            self._logged[camera.name] = now
            node.get_logger().info(
                f'{camera.topic}: {now.taken - before.taken} frames taken in the last minute, '
                f'{now.dropped - before.dropped} dropped, {now.failed - before.failed} refused, '
                f'{now.seconds * 1e3:.1f} ms a frame, {camera.memory.frames} in memory; '
                f'{answers} answers, the last in {node.scheduler.answer_seconds:.2f} s'
            )


class _Stream:
    """One camera's status, with what it was a second ago."""

    def __init__(self, node: InfiniteVLNode, camera: Camera):
        self._node, self._camera = node, camera
        self._before, self._received = FrameCounts(), 0
        self._newest = time.monotonic()

    def status(self) -> DiagnosticStatus:
        node, camera = self._node, self._camera
        subscription, memory = camera.subscription, camera.memory
        counts = FrameCounts()
        if node.scheduler and memory:
            counts = replace(node.scheduler.counts(memory))
        received = counts.received + camera.skipped
        if received > self._received:
            self._newest = time.monotonic()
        self._received = received
        fault = self._fault(subscription, counts) if subscription else ''
        self._before = counts
        values = {
            'topic': camera.topic,
            'publishers': subscription.publishers if subscription else 0,
            'image_reliability': subscription.reliability if subscription else 'not subscribed',
            'frames_received': received,
            'frames_taken': counts.taken,
            'frames_dropped': counts.dropped,
            'frames_skipped': camera.skipped,
            'frames_failed': counts.failed,
            'frame_ms': f'{counts.seconds * 1e3:.1f}',
            'frames_in_memory': memory.frames if memory else 0,
            'memory_bytes': memory.nbytes if memory else 0,
        }
        level = DiagnosticStatus.WARN if fault else DiagnosticStatus.OK
        message = fault or ('streaming' if subscription else node.state)
        return _status(node, camera.name or 'stream', level, message, camera.topic, values)

    def _fault(self, subscription: ImageSubscription, counts: FrameCounts) -> str:
        """What is wrong with the stream since the status before; '' if nothing is."""
        before, topic, publishers = self._before, self._camera.topic, subscription.publishers
        if mismatch := subscription.mismatch:
            subscription.warn(mismatch)
            return mismatch
        if not self._received:
            return f'no image on {topic} yet ({publishers} publishers)'
        silent = time.monotonic() - self._newest
        if silent > SILENCE:
            return f'no image on {topic} for {silent:.0f} s ({publishers} publishers)'
        if counts.failed > before.failed and counts.taken == before.taken:
            return 'every image is refused; the log says why'
        return ''


def _status(
    node: InfiniteVLNode, part: str, level: bytes, message: str, hardware: str, values: dict
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=f'{node.get_fully_qualified_name()[1:]}: {part}',
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
