"""Trains a network for one stage, step by step, resumable at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from infinitevl_ros.engine.steps import Geometry
from infinitevl_ros.model.config import ModelConfig
from infinitevl_ros.model.weights import Weights, build

from . import network
from .data import IGNORED, KINDS, Batch, Phase, Pool, Words, WorldSettings, batches
from .kernels import operators

REPORT_EVERY = 25  # steps
COOLING = 0.3  # part of a stage over which its learning rate falls
KEPT_WIDE = ('.A_log', '.dt_bias')  # decays close to 1 do not bear 16 bits


@dataclass(frozen=True)
class Stage:
    """One stage: `loss` is answers, layers or scores (see losses.py); `train` what learns: all,
    decoder, or mixers. `clock` counts the steps of all stages before.
    """

    name: str
    loss: str
    train: str
    rate: float
    phases: tuple[Phase, ...]
    clock: int
    warm_up: int = 100
    decay: float = 0.01

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, Phase]:
        """The first step of the phase that `step` is in, and the phase."""
        first = 0
        for phase in self.phases:
            if step < first + phase.steps:
                return first, phase
            first += phase.steps
        raise ValueError(f'step {step} of {first}')

    def rate_at(self, step: int) -> float:
        """The learning rate: up in a line, level, and down in a line over the last part."""
        left = (self.steps - step) / self.steps
        return self.rate * min(1, (step + 1) / self.warm_up, left / COOLING + 0.01)

    def learns(self, name: str) -> bool:
        """Whether the tensor of this name is trained."""
        if self.train == 'mixers':
            return '.self_attn.' in name
        return self.train == 'all' or not name.startswith('visual.')


class Student:
    """A network's weights as parameters: float32, used in bfloat16 on a GPU."""

    def __init__(self, config: ModelConfig, tensors: dict[str, Tensor], device: torch.device):
        self.config, self.device = config, device
        self.dtype = torch.bfloat16 if device.type == 'cuda' else torch.float32
        self.parameters = {
            name: tensor.to(device, torch.float32).clone() for name, tensor in tensors.items()
        }

    def weights(self) -> Weights:
        tensors = {
            name: tensor if name.endswith(KEPT_WIDE) else tensor.to(self.dtype)
            for name, tensor in self.parameters.items()
        }
        kernels = operators(compiled=self.device.type == 'cuda')
        return replace(build(self.config, tensors), kernels=kernels)


Loss = Callable[[Weights, network.Streams, Batch], tuple[Tensor, Tensor | None]]


class Trainer:
    """Everything that a stage needs; `step` is the next one."""

    def __init__(
        self,
        stage: Stage,
        student: Student,
        loss: Loss,
        settings: WorldSettings,
        seed: int,
        words: Words,
        folder: Path,
    ):
        self.stage, self.student, self._loss = stage, student, loss
        self._settings, self._seed, self._words = settings, seed, words
        self._folder, self._file = folder, folder / f'{stage.name}.pt'
        self.step = 0
        learning = {n: p for n, p in student.parameters.items() if stage.learns(n)}
        for parameter in learning.values():
            parameter.requires_grad_()
        matrices = [p for p in learning.values() if p.dim() > 1]
        others = [p for p in learning.values() if p.dim() == 1]
        self._optimizer = torch.optim.AdamW(
            [{'params': matrices, 'weight_decay': stage.decay}, {'params': others}],
            betas=(0.9, 0.98),
            weight_decay=0,
            fused=student.device.type == 'cuda',
        )
        self._learning = list(learning.values())
        self._sums = torch.zeros(len(KINDS), 2, device=student.device)
        weights = student.weights()
        self._cells = Geometry.of(weights, (settings.side, settings.side)).cells
        self._header = torch.tensor(words.header, device=student.device)
        if self._file.exists():
            self._resume()

    def run(self, pool: Pool, until: float) -> bool:
        """Train on to the end of the stage, or until a time (time.monotonic); true at the end."""
        bar = tqdm(total=self.stage.steps, initial=self.step, desc=self.stage.name)
        with bar:
            while self.step < self.stage.steps:
                first, phase = self.stage.phase_at(self.step)
                feed = batches(
                    self._settings, phase, self._seed, self._words, self.stage.clock + self.step
                )
                for batch in feed:
                    if self.step == first + phase.steps:
                        break
                    if time.monotonic() > until:
                        self.save()
                        return False
                    pool.advance(self.stage.clock + self.step)
                    loss = self._train(batch.to(self.student.device), pool)
                    self.step += 1
                    bar.update()
                    if self.step % REPORT_EVERY == 0 or self.step == self.stage.steps:
                        self._report(loss, phase, bar)
        self.save()
        return True

    def save(self) -> None:
        """Write all that a later run needs to go on as if nothing had happened."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix('.part')
        torch.save(
            {
                'step': self.step,
                'parameters': {n: p.detach() for n, p in self.student.parameters.items()},
                'optimizer': self._optimizer.state_dict(),
                'sums': self._sums,
            },
            temporary,
        )
        temporary.replace(self._file)

    def _resume(self) -> None:
        saved = torch.load(self._file, map_location=self.student.device, weights_only=True)
        self.step = saved['step']
        with torch.no_grad():
            for name, parameter in self.student.parameters.items():
                parameter.copy_(saved['parameters'][name])
        self._optimizer.load_state_dict(saved['optimizer'])
        self._sums.copy_(saved['sums'])

    def _train(self, batch: Batch, pool: Pool) -> Tensor:
        for group in self._optimizer.param_groups:
            group['lr'] = self.stage.rate_at(self.step)
        weights = self.student.weights()
        frames = pool.frames.flatten(0, 1)[batch.frames.flatten()]
        with torch.set_grad_enabled(self.stage.train == 'all'):
            images = network.image_tokens(weights, frames)
        streams = network.Streams(
            self._header,
            images.unflatten(0, batch.frames.shape),
            batch.times,
            self._cells,
            batch.starts,
            batch.ids,
        )
        loss, right = self._loss(weights, streams, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
        self._optimizer.step()
        if right is not None:
            counts = torch.stack((right, torch.ones_like(right)), 1)
            self._sums.index_add_(0, batch.kinds, counts)
        return loss.detach()

    def _report(self, loss: Tensor, phase: Phase, bar: tqdm) -> None:
        """A line of the log: the loss, and what share of questions was answered exactly since."""
        right, asked = self._sums.cpu().T
        self._sums.zero_()
        share = {
            kind: round(float(right[i] / asked[i]), 4) for i, kind in enumerate(KINDS) if asked[i]
        }
        exact = float(right.sum() / asked.sum().clamp(min=1))
        line = {
            'stage': self.stage.name,
            'step': self.step,
            'clock': self.stage.clock + self.step,
            'frames': phase.frames,
            'loss': round(float(loss), 5),
            'exact': round(exact, 4),
            **share,
        }
        with open(self._folder / 'log.jsonl', 'a') as file:
            file.write(json.dumps(line) + '\n')
        bar.set_postfix(loss=f'{float(loss):.3f}', exact=f'{exact:.3f}')


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
