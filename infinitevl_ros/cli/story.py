"""What the demo asks about its patrol, and the right answers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from ..world.patrol import Patrol
from ..world.questions import Observer, ask

# Asked in the middle of a visit, at about these parts of the stream; the others at its end.
ON_THE_WAY = ((0.3, 'room'), (0.45, 'room before'), (0.7, 'where'))
AT_THE_END = ('where', 'where', 'seen', 'seen', 'first room', 'sign then', 'light then')
TRIES = 40


@dataclass(frozen=True)
class Planned:
    """A question for when `frame` frames have been sent, and the truth then."""

    frame: int
    kind: str
    question: str
    truth: str
    age: int | None

    def at(self, patrol: Patrol, frame: int) -> Planned:
        """The same question for when another number of frames has been seen.

        Where it cannot be asked then, as it was planned.
        """
        rng, observer = np.random.default_rng(0), Observer()
        for view, enters in itertools.islice(patrol.truth(), frame):
            observer.see(view, enters)
        for _ in range(10 * TRIES):
            found = ask(observer, rng, self.kind)
            if found and found.text == self.question:
                return replace(self, frame=frame, truth=found.answer, age=found.age)
        return self


def plan_questions(patrol: Patrol, seed: int = 0) -> list[Planned]:
    """Questions in the order they are asked, those at the end about what is longest ago."""
    rng, observer = np.random.default_rng(seed), Observer()
    length, count = patrol.visits[0].frames, len(patrol.visits)
    middles = {round(part * count) * length + length // 2: kind for part, kind in ON_THE_WAY}
    planned: list[Planned] = []
    named: set[str] = set()

    def add(kind: str) -> None:
        found = [ask(observer, rng, kind) for _ in range(TRIES)]
        new = [q for q in found if q and not named & set(q.things)]
        if kind == 'seen':  # one that is right to deny, then one that is not
            denied = any(one.truth == 'no' for one in planned if 'seen a' in one.question)
            new = [q for q in new if q.text.startswith('Have') and (q.age is None) != denied]
        if new:
            oldest = max(new, key=lambda question: question.age or 0)
            named.update(oldest.things)
            now = observer.frame + 1
            planned.append(Planned(now, kind, oldest.text, oldest.answer, oldest.age))

    for view, enters in patrol.truth():
        observer.see(view, enters)
        if observer.frame + 1 in middles:
            add(middles[observer.frame + 1])
    for kind in AT_THE_END:
        add(kind)
    return planned
