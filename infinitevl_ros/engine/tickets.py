"""Questions on their way through the scheduler, how they end, and the lanes they wait in."""

from __future__ import annotations

import time
from collections import Counter, deque
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
    """A question on its way. Both callbacks run on the scheduler's thread and must not block.

    `turn` orders those that wait: each client has one question in a turn.
    """

    memory: VisualMemory
    question: str
    sampling: Sampling
    deadline: float
    on_done: Callable[[Outcome], None]
    on_piece: Callable[[str], None] | None = None
    client: str = ''
    turn: int = 0
    began: float = field(default_factory=time.monotonic)
    end: str = ''  # why it is to end before its time

    def cancel(self, why: str = 'cancelled') -> None:
        """End it before the next token, or where it waits; `on_done` is called as ever."""
        self.end = why

    @property
    def overdue(self) -> str:
        """Why it must end now; '' when it need not."""
        if self.end:
            return self.end
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
    """Tickets that are answered one after the other; `answer` is the first one's, once begun.

    `turn` is that of the last one begun, `served` are the clients that had theirs in it.
    """

    tickets: deque[Ticket] = field(default_factory=deque)
    answer: Answer | None = None
    turn: int = 0
    served: set[str] = field(default_factory=set)

    def add(self, ticket: Ticket, most: int) -> bool:
        """Have a ticket wait among at most `most`, clients taking turns; whether it may.

        With no place left it takes one from the client that has most, if that is left with no
        fewer than its own client has then.
        """
        places = Counter(t.client for t in self.tickets if not t.end)
        if len(self.tickets) >= most:
            greedy = max(places, key=places.get, default='')
            fair = places[greedy] > places[ticket.client] + 1
            if not fair or len(self.tickets) >= 2 * most:  # those that end are still among them
                return False
            newest = next(t for t in reversed(self.tickets) if t.client == greedy and not t.end)
            newest.cancel('busy: its place went to a client that has fewer')
        own = [t.turn for t in self.tickets if t.client == ticket.client]
        had_one = ticket.client in self.served or len(self.served) >= most
        ticket.turn = max(own) + 1 if own else self.turn + had_one
        later = (i for i, t in enumerate(self.tickets) if t.turn > ticket.turn)
        self.tickets.insert(next(later, len(self.tickets)), ticket)
        return True

    def begin(self, ticket: Ticket, answer: Answer) -> None:
        """Answer the first ticket from now on."""
        if ticket.turn > self.turn:
            self.served.clear()
        self.answer, self.turn = answer, ticket.turn
        self.served.add(ticket.client)


def new_ticket(
    memory: VisualMemory,
    question: str,
    sampling: Sampling | None,
    timeout: float,
    on_done: Callable[[Outcome], None],
    on_piece: Callable[[str], None] | None = None,
    client: str = '',
) -> Ticket:
    deadline = time.monotonic() + timeout
    return Ticket(memory, question, sampling or Sampling(), deadline, on_done, on_piece, client)
