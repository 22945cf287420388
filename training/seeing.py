"""Learning to see, before anything is asked: the truth about single frames, from their tokens.

It is here in place of the pretrained vision tower that a large model starts with. A reader of a
few thousand weights, which ends with the stage, looks at a frame's tokens as attention will: for
each thing to be known a query, and linear readings of the mean of the tokens that it picks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from infinitevl_ros.model.weights import Weights
from infinitevl_ros.world.questions import SIDES, THINGS
from infinitevl_ros.world.scene import ROOMS, View

from . import network
from .data import IGNORED, KINDS, OnDevice, Phase, WorldSettings, in_order, world_seed
from .trainer import Student
from .world import make_world

# What is known of a frame, by the kind of question that asks for it, and how many values it has.
FACTS = {'room': len(ROOMS), 'light': 2, 'door': 2, 'person': 2, 'tens': 10, 'ones': 10}
PRESENCE = len(FACTS)  # column of the first thing: in view or not; sides come behind
SIDE = PRESENCE + len(THINGS)
# In view are one or two things of 36: their losses are added up, not averaged, times this.
PRESENCE_WEIGHT = 1 / 3


@dataclass
class Sights(OnDevice):
    """`frames` [F] index the pool; `truth` [F, FACTS, then THINGS, then THINGS' sides].

    IGNORED is what cannot be told.
    """

    frames: Tensor
    truth: Tensor


def truth(view: View) -> np.ndarray:
    """A row of Sights.truth."""
    row = np.full(SIDE + len(THINGS), IGNORED, np.int16)
    facts = list(ROOMS).index(view.room), view.light, view.door_open, view.person
    digits = (None, None) if view.sign is None else divmod(view.sign, 10)
    row[:PRESENCE] = [IGNORED if fact is None else fact for fact in (*facts, *digits)]
    row[PRESENCE:SIDE] = 0
    for seen in view.objects:
        thing = THINGS.index(seen.name)
        row[PRESENCE + thing] = 1
        if seen.sure:
            row[SIDE + thing] = list(SIDES).index(seen.side)
    for name in view.partly:
        row[PRESENCE + THINGS.index(name)] = IGNORED
    return row


@functools.lru_cache(maxsize=4096)
def _truths(seed: int, frames: int) -> np.ndarray:
    world = make_world(seed, frames)
    return np.stack([truth(view) for views in world.views for view in views])


class _Sights(Dataset):
    def __init__(self, settings: WorldSettings, phase: Phase, seed: int):
        self._settings, self._phase, self._seed = settings, phase, seed

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, clock: int) -> Sights:
        s, phase = self._settings, self._phase
        rng = np.random.default_rng((self._seed, clock))
        frames, truths = [], []
        for number in s.draw(rng, clock, phase.streams):
            chosen = rng.integers(0, s.frames, phase.frames)
            frames.append(number % s.slots * s.frames + chosen)
            truths.append(_truths(world_seed(self._seed, number), s.frames)[chosen])
        parts = (np.concatenate(part).astype(np.int64) for part in (frames, truths))
        return Sights(*map(torch.from_numpy, parts))


class Seeing:
    """The task of a stage that sees; see Trainer. A phase's frames are single ones of worlds.

    `seed` is of the worlds, `first` of the reader's first weights.
    """

    def __init__(self, student: Student, settings: WorldSettings, seed: int, first: int):
        self._settings, self._seed = settings, seed
        self.parameters = {
            f'reader.{name}': tensor.to(student.device)
            for name, tensor in _reader(student.config.hidden_size, first).items()
        }

    def batches(self, phase: Phase, clock: int) -> Iterator[Sights]:
        return in_order(_Sights(self._settings, phase, self._seed), clock, self._settings.workers)

    def loss(self, weights: Weights, frames: Tensor, batch: Sights) -> tuple[Tensor, Tensor]:
        tokens = network.image_tokens(weights, frames).float()
        return self._compare(self._read(tokens), batch.truth)

    def _read(self, tokens: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Scores of the facts [F, values], of things being in view [F, T], of sides [F, T, 3]."""
        part = self.parameters
        tokens = F.rms_norm(tokens, tokens.shape[-1:])
        picked = (tokens @ part['reader.queries']).softmax(1)
        means = picked.transpose(1, 2) @ tokens
        facts = {name: means[:, i] @ part[f'reader.{name}'].T for i, name in enumerate(FACTS)}
        things = means[:, PRESENCE:]
        presence = (things * part['reader.presence']).sum(-1) + part['reader.often']
        return facts, presence, torch.einsum('ftd,tsd->fts', things, part['reader.sides'])

    @staticmethod
    def _compare(
        read: tuple[dict[str, Tensor], Tensor, Tensor], truth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss, and how much was right and asked of each kind."""
        facts, presence, sides = read
        counts = torch.zeros(len(KINDS), 2, device=truth.device)
        told, right = truth != IGNORED, {}
        loss = presence.new_zeros(())
        for column, (name, scores) in enumerate(facts.items()):
            loss = loss + _cross_entropy(scores, truth[:, column])
            right[name] = scores.argmax(-1) == truth[:, column]
        in_view, known = truth[:, PRESENCE:SIDE], told[:, PRESENCE:SIDE]
        missed = F.binary_cross_entropy_with_logits(
            presence, in_view.clamp(min=0).to(presence.dtype), reduction='none'
        )
        loss = loss + PRESENCE_WEIGHT * (missed * known).sum(-1).mean()
        loss = loss + _cross_entropy(sides.flatten(0, 1), truth[:, SIDE:].flatten())

        tallies = {name: (right[name], told[:, i]) for i, name in enumerate(FACTS)}
        tallies['sign'] = right['tens'] & right['ones'], told[:, list(FACTS).index('tens')]
        all_right = (((presence > 0) == (in_view == 1)) | ~known).all(-1)
        tallies['view'] = all_right, torch.ones_like(all_right)
        tallies['side'] = sides.argmax(-1) == truth[:, SIDE:], told[:, SIDE:]
        for name, (correct, asked) in tallies.items():
            if name in KINDS:
                pair = torch.stack(((correct & asked).sum(), asked.sum()))
                counts[KINDS.index(name)] = pair.to(counts.dtype)
        return loss, counts


def _cross_entropy(scores: Tensor, truth: Tensor) -> Tensor:
    """Mean over what is told; 0 where nothing is."""
    summed = F.cross_entropy(scores, truth, ignore_index=IGNORED, reduction='sum')
    return summed / (truth != IGNORED).sum().clamp(min=1)


def _reader(size: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        'queries': (size, PRESENCE + len(THINGS)),
        **{name: (values, size) for name, values in FACTS.items()},
        'presence': (len(THINGS), size),
        'sides': (len(THINGS), len(SIDES), size),
    }
    tensors = {
        name: torch.randn(shape, generator=generator) * size**-0.5
        for name, shape in shapes.items()
    }
    return {**tensors, 'often': torch.full((len(THINGS),), -2.0)}
