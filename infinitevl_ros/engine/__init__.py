"""Streaming: frames into a memory that never grows, questions on copies of it. No ROS here."""

from .engine import Answer, Sampling, StreamingEngine
from .memory import MemoryFileError, MemoryInfo, VisualMemory
from .scheduler import Outcome, QueueFullError, Scheduler, Ticket

__all__ = [
    'Answer',
    'MemoryFileError',
    'MemoryInfo',
    'Outcome',
    'QueueFullError',
    'Sampling',
    'Scheduler',
    'StreamingEngine',
    'Ticket',
    'VisualMemory',
]
