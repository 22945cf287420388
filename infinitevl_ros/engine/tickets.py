"""Questions on their way through the scheduler, how they end, and the lanes they wait in."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .engine import Answer
from .memory import VisualMemory
from .sampling import Sampling


class QueueFullError(RuntimeError):
    """As many questions wait as the scheduler holds."""


@dataclass(frozen=True)
class Outcome:
    """How a question ended.

    `message` says why when `success` is false; `text` then is what had been said. `seconds` counts
    from the question's arrival; stamps (nanoseconds) and `frames` tell what the answer has seen.
    """

    success: bool
    text: str = ''
    message: str = ''
    tokens: int = 0
    seconds: float = 0.0
    frames: int = 0
    first_stamp: int | None = None
    newest_stamp: int | None = None


@dataclass(eq=False)
class Ticket:
    """A question on its way. Both callbacks run on the scheduler's thread and must not block."""

    memory: VisualMemory
    question: str
    sampling: Sampling
    deadline: float
    on_done: Callable[[Outcome], None]
    on_piece: Callable[[str], None] | None = None
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    def cancel(self) -> None:
        """End it before the next token, or where it waits; `on_done` is called as ever."""
        self.cancelled = True

    @property
    def overdue(self) -> str:
        """Why it must end now; '' when it need not."""
        if self.cancelled:
            return 'cancelled'
        if time.monotonic() > self.deadline:
            return f'no answer within {self.deadline - self.began:.1f} s'
        return ''


@dataclass
class FrameCounts:
    """Frames of one memory: offered, taken into it, dropped for a newer one, refused as broken."""

    received: int = 0
    taken: int = 0
    dropped: int = 0
    failed: int = 0
    seconds: float = 0.0  # wall time the newest frame took


@dataclass(eq=False)
class Lane:
    """Tickets that are answered one after the other; `answer` is the first one's, once begun."""

    tickets: deque[Ticket] = field(default_factory=deque)
    answer: Answer | None = None


def new_ticket(
    memory: VisualMemory,
    question: str,
    sampling: Sampling | None,
    timeout: float,
    on_done: Callable[[Outcome], None],
    on_piece: Callable[[str], None] | None,
) -> Ticket:
    deadline = time.monotonic() + timeout
    return Ticket(memory, question, sampling or Sampling(), deadline, on_done, on_piece)
