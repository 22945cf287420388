"""Trains a network for one stage, step by step, resumable at any time."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from infinitevl_ros.model.config import ModelConfig
from infinitevl_ros.model.weights import Weights, build

from . import network
from .data import KINDS, OnDevice, Phase, Pool
from .group import Group
from .kernels import operators

REPORT_EVERY = 25  # steps
COOLING = 0.3  # part of a stage over which its learning rate falls
KEPT_WIDE = ('.A_log', '.dt_bias')  # decays close to 1 do not bear 16 bits


@dataclass(frozen=True)
class Stage:
    """One stage: `loss` is sights (seeing.py), answers, layers or scores (asking.py); `train` what
    learns: vision, decoder, or of that the mixers. `clock` counts the steps of all stages before;
    in a `full_attention` stage every layer attends.
    """

    name: str
    loss: str
    train: str
    rate: float
    phases: tuple[Phase, ...]
    clock: int
    full_attention: bool = False
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
        return name.startswith('visual.') == (self.train == 'vision')


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


class Task(Protocol):
    """What a stage teaches: batches whose `frames` index the pool, and their loss.

    `parameters` learn beside the network's and end with the stage. `loss` is given the weights,
    the batch and its pictures: frames, uint8 [F, H, W, 3], where the vision tower learns, else
    their image tokens [F, N, D]. Beside the loss it returns how much was right and asked of each
    kind, [KINDS, 2], or None where that means nothing.
    """

    parameters: dict[str, Tensor]

    def batches(self, phase: Phase, clock: int) -> Iterator[OnDevice]: ...

    def loss(
        self, weights: Weights, pictures: Tensor, batch: OnDevice
    ) -> tuple[Tensor, Tensor | None]: ...


class Trainer:
    """Everything that a stage needs; `step` is the next one."""

    def __init__(self, stage: Stage, student: Student, task: Task, folder: Path, group: Group):
        self.stage, self.student, self._task, self._group = stage, student, task, group
        self._folder, self._file = folder, folder / f'{stage.name}.pt'
        self.step = 0
        # All that a stage saves, and of it what learns.
        self._parameters = student.parameters | task.parameters
        learning = {
            name: parameter
            for name, parameter in self._parameters.items()
            if name in task.parameters or stage.learns(name)
        }
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
        if self._file.exists():
            self._resume()

    def run(self, pool: Pool, until: float) -> bool:
        """Train on to the end of the stage, or until a time (time.monotonic); true at the end."""
        stage, group = self.stage, self._group
        see = None
        if stage.train != 'vision':
            see = functools.partial(network.image_tokens, self.student.weights())
        pool.see_with(see)
        bar = tqdm(total=stage.steps, initial=self.step, desc=stage.name, disable=not group.leads)
        with bar:
            while self.step < stage.steps:
                first, phase = stage.phase_at(self.step)
                for batch in self._task.batches(group.share(phase), stage.clock + self.step):
                    if self.step == first + phase.steps:
                        break
                    if group.agree(time.monotonic() > until):
                        self.save()
                        return False
                    pool.advance(stage.clock + self.step)
                    loss = self._train(batch.to(self.student.device), pool)
                    self.step += 1
                    bar.update()
                    if self.step % REPORT_EVERY == 0 or self.step == stage.steps:
                        self._report(loss, phase, bar)
        self.save()
        return True

    def save(self) -> None:
        """Write all that a later run needs to go on as if nothing had happened."""
        self._group.add_up([self._sums])
        if not self._group.leads:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix('.part')
        torch.save(
            {
                'step': self.step,
                'parameters': {n: p.detach() for n, p in self._parameters.items()},
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
            for name, parameter in self._parameters.items():
                parameter.copy_(saved['parameters'][name])
        self._optimizer.load_state_dict(saved['optimizer'])
        if self._group.leads:
            self._sums.copy_(saved['sums'])

    def _train(self, batch: OnDevice, pool: Pool) -> Tensor:
        for group in self._optimizer.param_groups:
            group['lr'] = self.stage.rate_at(self.step)
        pictures = pool.pictures(batch.frames.flatten())
        loss, counts = self._task.loss(self.student.weights(), pictures, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._group.add_up([p.grad for p in self._learning if p.grad is not None], divide=True)
        torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
        self._optimizer.step()
        if counts is not None:
            self._sums += counts
        return loss.detach()

    def _report(self, loss: Tensor, phase: Phase, bar: tqdm) -> None:
        """A line of the log: the loss, and what share of questions was answered exactly since."""
        self._group.add_up([self._sums])
        right, asked = self._sums.cpu().T
        self._sums.zero_()
        if not self._group.leads:
            return
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
            **({'exact': round(exact, 4)} if share else {}),
            **share,
        }
        with open(self._folder / 'log.jsonl', 'a') as file:
            file.write(json.dumps(line) + '\n')
        bar.set_postfix(loss=f'{float(loss):.3f}', exact=f'{exact:.3f}')
