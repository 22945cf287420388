"""Batches of streams with questions, made by worker processes; worlds kept on the device.

What a batch holds depends on the seed and the step alone: worlds are numbered, every step adds a
fixed number of new ones to the pool in order, and patrols are drawn from those that are in it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from infinitevl_ros.engine.prompt import Prompt
from infinitevl_ros.world.questions import Question
from infinitevl_ros.world.wordings import WORDINGS

from .world import interview, make_world, paint, wander

KINDS = tuple(WORDINGS)
BRANCH_TOKENS = 48
ANSWER_TOKENS = 40
IGNORED = -100
ASK_EVERY = 4  # frames: branches start where chunks of the delta rule do
RATES = (2.0, 30.0)  # frames a second

See = Callable[[Tensor], Tensor]  # image tokens of frames


@dataclass(frozen=True)
class WorldSettings:
    """`slots` worlds of `frames` frames at a time, each `side` pixels high and wide.

    `first` of them are painted before the first step, then `per_step` more after each. As many as
    `workers` processes paint, and as many again put batches together; 0 does it all here.
    """

    frames: int = 320
    slots: int = 1000
    first: int = 500
    per_step: float = 3.0
    workers: int = 14
    side: int = 112

    def share(self, size: int) -> WorldSettings:
        """What one of `size` processes keeps and paints."""
        return replace(
            self,
            slots=self.slots // size,
            first=self.first // size,
            per_step=self.per_step / size,
        )

    def newest(self, clock: int) -> int:
        """How many worlds have been made before step `clock`."""
        return self.first + int(self.per_step * clock)

    def draw(self, rng: np.random.Generator, clock: int, count: int) -> list[int]:
        """Numbers of worlds that are in the pool at step `clock`."""
        newest = self.newest(clock)
        return rng.integers(max(0, newest - self.slots), newest, count).tolist()


@dataclass(frozen=True)
class Phase:
    """`steps` steps with batches of `streams` x `frames` frames and `branches` questions each.

    `memory` is the part of questions that are about the past; half of the streams have run
    before, for up to `before` seconds.
    """

    steps: int
    frames: int
    streams: int
    branches: int = 0
    memory: float = 0.0
    before: float = 2e5


class OnDevice:
    """Tensors in a dataclass."""

    def to(self, device: torch.device) -> OnDevice:
        moved = (getattr(self, f.name).to(device, non_blocking=True) for f in fields(self))
        return type(self)(*moved)


@dataclass
class Batch(OnDevice):
    """B streams of F frames with Q questions; A is ANSWER_TOKENS, T is BRANCH_TOKENS.

    `frames` [B, F] index the pool; `times` [B, F]; `starts` [B, Q] frames before a question; `ids`
    [B, Q, T]; `places` [B * Q, A] of the tokens that predict `answers` [B * Q, A] (IGNORED behind
    the end); `kinds` [B * Q] index KINDS.
    """

    frames: Tensor
    times: Tensor
    starts: Tensor
    ids: Tensor
    places: Tensor
    answers: Tensor
    kinds: Tensor


class _Worlds(Dataset):
    def __init__(self, settings: WorldSettings, seed: int):
        self._settings, self._seed = settings, seed

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, number: int) -> Tensor:
        world = make_world(world_seed(self._seed, number), self._settings.frames)
        return torch.from_numpy(paint(world, self._settings.side))


class Batches(Dataset):
    """Streams with questions, a Batch for each step."""

    def __init__(self, settings: WorldSettings, phase: Phase, seed: int, words: Words):
        self._settings, self._phase, self._seed, self._words = settings, phase, seed, words

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, clock: int) -> Batch:
        s, phase = self._settings, self._phase
        rng = np.random.default_rng((self._seed, clock))
        columns: list[list] = [[] for _ in range(7)]
        for number in s.draw(rng, clock, phase.streams):
            world = make_world(world_seed(self._seed, number), s.frames)
            chosen = wander(world, phase.frames, rng)
            ends = phase.frames // ASK_EVERY
            starts = np.sort(rng.integers(1, ends + 1, phase.branches)) * ASK_EVERY
            base = number % s.slots * s.frames
            frames = np.concatenate(
                [base + world.first[n] + np.arange(world.visits[n].frames) for n in chosen]
            )
            questions = interview(world, chosen, starts, phase.memory, rng)
            ids, places, answers = zip(*map(self._words.branch, questions), strict=True)
            kinds = [KINDS.index(question.kind) for question in questions]
            row = frames[: phase.frames], _times(phase, rng), starts, ids, places, answers
            for column, value in zip(columns, (*row, kinds), strict=True):
                column.append(value)
        parts = [torch.from_numpy(np.array(column, np.int64)) for column in columns]
        return Batch(*parts[:4], *(part.flatten(0, 1) for part in parts[4:]))


def _times(phase: Phase, rng: np.random.Generator) -> np.ndarray:
    """Time positions of a stream's frames, as the engine's: two a second, once a second."""
    rate = np.exp(rng.uniform(*np.log(RATES)))
    before = np.exp(rng.uniform(0, np.log(phase.before))) if rng.random() < 0.5 else 0
    return 2 * (before + np.arange(phase.frames) / rate).astype(np.int64)


def world_seed(seed: int, number: int) -> int:
    """Below 2**32, where the seeds of held-out worlds begin (bench/recall.py)."""
    return (seed % 256) * 2**24 + number


class Words:
    """Questions and answers as token ids."""

    def __init__(self, prompt: Prompt, end: int):
        self._prompt, self._end = prompt, end
        self.header = prompt.header('header_first')
        self._question = functools.lru_cache(2**16)(self._encode_question)
        self._answer = functools.lru_cache(2**16)(prompt.encode)

    def branch(self, question: Question) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The `ids`, `places` and `answers` of a Batch for one question."""
        asked = self._question(question.text)
        answer = [*self._answer(question.answer), self._end]
        line = asked + answer[:-1]
        if len(line) > BRANCH_TOKENS or len(answer) > ANSWER_TOKENS:
            raise ValueError(f'does not fit into {BRANCH_TOKENS} tokens: {question}')
        ids = np.zeros(BRANCH_TOKENS, np.int64)
        ids[: len(line)] = line
        places = np.zeros(ANSWER_TOKENS, np.int64)
        places[: len(answer)] = np.arange(len(asked) - 1, len(line))
        answers = np.full(ANSWER_TOKENS, IGNORED)
        answers[: len(answer)] = answer
        return ids, places, answers

    def _encode_question(self, text: str) -> list[int]:
        return self._prompt.question(text, 'header_first')


class Pool:
    """The worlds that batches are drawn from, on the device: `frames` [slots, frames, H, W, 3].

    Worlds come in the order of their numbers, each into the place of the oldest. For a vision
    tower that no longer learns, their image tokens are kept as well, found once.
    """

    def __init__(self, settings: WorldSettings, seed: int, device: torch.device):
        self._settings, self._seed, self._device = settings, seed, device
        shape = settings.slots, settings.frames, settings.side, settings.side, 3
        self.frames = torch.empty(shape, dtype=torch.uint8, device=device)
        self._worlds: Iterator[Tensor] | None = None
        self._count = 0
        self._see: See | None = None
        self._tokens: Tensor | None = None

    def see_with(self, see: See | None) -> None:
        """Have `pictures` return tokens that `see` makes of frames, or the frames themselves."""
        self._see, self._tokens = see, None
        for slot in range(min(self._count, len(self.frames))):
            self._look_at(slot)

    def pictures(self, numbers: Tensor) -> Tensor:
        """What is to be known of the frames with these numbers; see Batch.frames."""
        kept = self.frames if self._see is None else self._tokens
        return kept.flatten(0, 1)[numbers]

    def _look_at(self, slot: int) -> None:
        if self._see is None:
            return
        with torch.no_grad():
            tokens = self._see(self.frames[slot])
        if self._tokens is None:
            self._tokens = tokens.new_empty(len(self.frames), *tokens.shape)
        self._tokens[slot] = tokens

    def advance(self, clock: int) -> None:
        """Take in the worlds that step `clock` may use."""
        newest, slots = self._settings.newest(clock), self._settings.slots
        if self._worlds is None:
            self._count = max(0, newest - slots)
            worlds = _Worlds(self._settings, self._seed)
            self._worlds = in_order(worlds, self._count, self._settings.workers)
        for _ in tqdm(
            range(newest - self._count), 'worlds', leave=False, disable=newest - self._count < 50
        ):
            slot = self._count % slots
            self.frames[slot].copy_(next(self._worlds), non_blocking=True)
            self._look_at(slot)
            self._count += 1


def in_order(dataset: Dataset, first: int, workers: int) -> Iterator:
    """The items of a dataset from `first` on, made by worker processes."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=itertools.count(first),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
