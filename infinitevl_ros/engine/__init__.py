"""Streaming: frames into a memory that never grows, questions on copies of it. No ROS here."""

from .engine import Answer, Frame, StreamingEngine
from .memory import MemoryFileError, MemoryInfo, VisualMemory
from .options import Options
from .sampling import Sampling
from .scheduler import Outcome, QueueFullError, Scheduler, Ticket

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
    'StreamingEngine',
    'Ticket',
    'VisualMemory',
]
