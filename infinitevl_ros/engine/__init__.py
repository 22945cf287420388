"""Streaming: frames into a memory that never grows, questions on copies of it. No ROS here."""

from .engine import Answer, Frame, StreamingEngine
from .memory import MemoryInfo, VisualMemory
from .options import Options
from .sampling import Sampling
from .scheduler import Scheduler
from .snapshot import MemoryFileError, Snapshot
from .tickets import Outcome, QueueFullError, Ticket

__all__ = [
    'Answer',
    'Frame',
    'MemoryFileError',
    'MemoryInfo',
    'Options',
    'Outcome',
    'QueueFullError',
    'Sampling',
    'Scheduler',
    'Snapshot',
    'StreamingEngine',
    'Ticket',
    'VisualMemory',
]
