"""What the node tells /diagnostics once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

if TYPE_CHECKING:
    from .node import InfiniteVLNode


def status(node: InfiniteVLNode) -> DiagnosticStatus:
    """One status: warning while no image has arrived, or when images are refused."""
    counts = node.scheduler.counts(node.memory)
    camera = node.camera
    level, message = DiagnosticStatus.OK, 'streaming'
    if not counts.received:
        level = DiagnosticStatus.WARN
        message = f'no image on {camera.topic} yet ({camera.publishers} publishers)'
    elif counts.failed and not counts.taken:
        level, message = DiagnosticStatus.WARN, 'every frame was refused; see the log'
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
        level=level,
        name=f'{node.get_fully_qualified_name()[1:]}: stream',
        message=message,
        hardware_id=camera.topic,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
