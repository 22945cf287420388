"""What the node tells /diagnostics once a second."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType

from ..engine.scheduler import FrameCounts

if TYPE_CHECKING:
    from .node import InfiniteVLNode

PERIOD = 1.0  # seconds
SILENCE = 5.0  # seconds without an image that are worth a warning


class Diagnostics:
    """Publishes the state of the node's stream; warns while nothing comes or nothing is usable."""

    def __init__(self, node: InfiniteVLNode):
        self._node = node
        self._before = FrameCounts()
        self._newest = time.monotonic()
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # Steady: diagnostics go on when simulated time stands still.
        node.create_timer(PERIOD, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _publish(self) -> None:
        array = DiagnosticArray(status=[self._status()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _status(self) -> DiagnosticStatus:
        node, camera = self._node, self._node.camera
        counts = replace(node.scheduler.counts(node.memory))
        fault = self._fault(counts)
        self._before = counts
        values = {
            'model': node.engine.name,
            'device': node.engine.weights.device,
            'topic': camera.topic,
            'image_reliability': camera.reliability,
            'frames_received': counts.received,
            'frames_taken': counts.taken,
            'frames_dropped': counts.dropped,
            'frames_failed': counts.failed,
            'frame_ms': f'{counts.seconds * 1e3:.1f}',
            'frames_in_memory': node.memory.frames,
            'memory_bytes': node.memory.nbytes,
            'questions_waiting': node.scheduler.waiting,
        }
        return DiagnosticStatus(
            level=DiagnosticStatus.WARN if fault else DiagnosticStatus.OK,
            name=f'{node.get_fully_qualified_name()[1:]}: stream',
            message=fault or 'streaming',
            hardware_id=camera.topic,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _fault(self, counts: FrameCounts) -> str:
        """What is wrong with the stream since the status before; '' if nothing is."""
        now, before, camera = time.monotonic(), self._before, self._node.camera
        if counts.received > before.received:
            self._newest = now
        if not counts.received:
            return f'no image on {camera.topic} yet ({camera.publishers} publishers)'
        if now - self._newest > SILENCE:
            return (
                f'no image on {camera.topic} for {now - self._newest:.0f} s '
                f'({camera.publishers} publishers)'
            )
        if counts.failed > before.failed and counts.taken == before.taken:
            return 'every image is refused; the log says why'
        return ''
