"""What is taught by questions: streams with branches, and the losses of their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitevl_ros.engine.steps import Geometry
from infinitevl_ros.model.weights import Weights

from . import network
from .data import IGNORED, KINDS, Batch, Batches, Phase, Words, WorldSettings, in_order
from .trainer import Student

# Of the weights, the streams and the batch that they were made of: the loss, and which of the
# questions were answered exactly, where that is known.
Loss = Callable[[Weights, network.Streams, Batch], tuple[Tensor, Tensor | None]]


class Asking:
    """The task of a stage that asks; see Trainer."""

    def __init__(
        self,
        student: Student,
        loss: Loss,
        settings: WorldSettings,
        seed: int,
        words: Words,
    ):
        self._loss, self._settings, self._seed, self._words = loss, settings, seed, words
        self._cells = Geometry.of(student.weights(), (settings.side, settings.side)).cells
        self._header = torch.tensor(words.header, device=student.device)
        self.parameters: dict[str, Tensor] = {}

    def batches(self, phase: Phase, clock: int) -> Iterator[Batch]:
        dataset = Batches(self._settings, phase, self._seed, self._words)
        return in_order(dataset, clock, self._settings.workers)

    def loss(self, weights: Weights, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        streams = network.Streams(
            self._header,
            images.unflatten(0, batch.frames.shape),
            batch.times,
            self._cells,
            batch.starts,
            batch.ids,
        )
        loss, right = self._loss(weights, streams, batch)
        if right is None:
            return loss, None
        counts = torch.zeros(len(KINDS), 2, device=right.device)
        return loss, counts.index_add_(
            0, batch.kinds, torch.stack((right, torch.ones_like(right)), 1)
        )


def answers(weights: Weights, streams: network.Streams, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the answers' tokens, and which of the questions are answered exactly."""
    return answer_loss(answer_scores(weights, streams, batch), batch)


def answer_scores(weights: Weights, streams: network.Streams, batch: Batch) -> Tensor:
    """Scores [B * Q, A, vocabulary] for the tokens of the answers, float32."""
    hidden = network.run(weights, *network.start(weights, streams))
    places = batch.places[..., None].expand(-1, -1, hidden.shape[-1])
    return F.linear(hidden.gather(1, places), weights.head).float()


def answer_loss(scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """See `answers`. A question counts as the root of its answer's length."""
    losses = F.cross_entropy(
        scores.transpose(1, 2), batch.answers, ignore_index=IGNORED, reduction='none'
    )
    used = batch.answers != IGNORED
    loss = (losses.sum(1) * used.sum(1).rsqrt()).mean()
    right = ((scores.argmax(-1) == batch.answers) | ~used).all(1)
    return loss, right.float()


def scores_of(teacher: Student) -> Loss:
    """Kullback-Leibler divergence from the teacher's scores to the student's, on the answers."""
    taught = teacher.weights()

    def loss(weights: Weights, streams: network.Streams, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            expected = answer_scores(taught, streams, batch).log_softmax(-1)
        scores = answer_scores(weights, streams, batch)
        used = batch.answers != IGNORED
        distance = F.kl_div(
            scores.log_softmax(-1), expected, reduction='none', log_target=True
        ).sum(-1)
        total = ((distance * used).sum(1) * used.sum(1).rsqrt()).mean()
        return total, answer_loss(scores, batch)[1]

    return loss


def layers_of(teacher: Student) -> Loss:
    """Mean squared error of every layer's mixer, given what the teacher's layer gets.

    Each layer is taught by itself: what it adds to the residual stream is compared with what the
    teacher's adds there, as a part of the teacher's variance.
    """
    taught = teacher.weights()

    def loss(weights: Weights, streams: network.Streams, batch: Batch) -> tuple[Tensor, None]:
        with torch.no_grad():
            x, plan = network.start(taught, streams)
        total = x.new_zeros(())
        for block, other in zip(weights.layers, taught.layers, strict=True):
            with torch.no_grad():
                expected = F.linear(network.mix(taught, other, x, plan), other.mixer.out).float()
            mixed = network.mix(weights, block, x, plan)
            added = F.linear(mixed, block.mixer.out).float()
            counts = _real(plan, len(x))
            error = ((added - expected).square().mean(-1) * counts).sum()
            total = total + error / ((expected.square().mean(-1) * counts).sum() + 1e-6)
            with torch.no_grad():
                x = network.layer(taught, other, x, plan)
        return total / len(taught.layers), None

    return loss


def _real(plan: network.Plan, tokens: int) -> Tensor:
    """Which of all tokens are no padding in front of a stream, 1 or 0."""
    index = torch.arange(tokens, device=plan.first.device)
    return ((index >= plan.batch * plan.length) | (index % plan.length >= plan.padding)).float()
