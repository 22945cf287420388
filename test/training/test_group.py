"""Two processes train as one does, with the batches of both."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from training.__main__ import CONFIGS, Recipe, Run
from training.data import Phase
from training.group import ALONE, Group

ROOT = Path(__file__).parents[2]


def test_streams_that_do_not_divide_are_refused():
    assert Group(0, 2).share(Phase(1, 8, 6)).streams == 3
    with pytest.raises(ValueError, match='5 streams do not divide among 2 processes'):
        Group(0, 2).share(Phase(1, 8, 5))


def test_a_process_alone_asks_nobody():
    value = torch.tensor([2.0])
    ALONE.add_up([value], divide=True)
    assert value.item() == 2
    assert ALONE.agree(True) is True
    assert ALONE.agree(False) is False


LEAVING = """
from pathlib import Path
import torch
from training.group import Group
group = Group.join()
names = lambda: [file.read_text() for file in Path('/proc/self/task').glob('*/comm')]
print(sum('gloo' in name for name in names()))
torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
group.leave()
print(sum('gloo' in name for name in names()))
"""


def test_a_group_that_was_left_has_no_threads():
    """One that is still at work when Python ends would end the process as failed."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torchrun = {'TORCHELASTIC_RUN_ID': 'alone', 'MASTER_ADDR': '127.0.0.1', 'RANK': '0'}
    torchrun |= {'WORLD_SIZE': '1', 'LOCAL_RANK': '0', 'MASTER_PORT': str(port)}
    done = subprocess.run(
        [sys.executable, '-c', LEAVING], cwd=ROOT, env=plain() | torchrun, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    before, after = map(int, done.stdout.split())
    assert before > 0
    assert after == 0


def plain():
    """The environment of a plain shell: ./dev keeps the folder that one is in from imports."""
    return {name: value for name, value in os.environ.items() if name != 'PYTHONSAFEPATH'}


def together(folder, config, *arguments):
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    command = [*torchrun, '--nproc-per-node', '2', '-m', 'training', *arguments]
    command += ['--config', str(config), '--folder', str(folder), '--device', 'cpu']
    done = subprocess.run(
        command, cwd=ROOT, env=plain(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def recipe(tmp_path):
    """The smoke recipe with an even number of streams everywhere, as a file."""
    values = yaml.safe_load((CONFIGS / 'smoke.yaml').read_text())
    for stage in values['stages'].values():
        for phase in stage['phases']:
            phase['streams'] = 2
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def test_two_go_through_all_stages_and_the_first_writes(tmp_path, recipe):
    said = together(tmp_path / 'run', recipe, 'all')
    stages = Recipe.read(recipe).stages
    assert said.count('Finished') == len(stages)
    lines = [json.loads(line) for line in (tmp_path / 'run/log.jsonl').read_text().splitlines()]
    assert [line['stage'] for line in lines] == [stage.name for stage in stages]
    assert together(tmp_path / 'run', recipe, 'all') == ''


def test_a_step_of_two_follows_the_mean_of_both_gradients(tmp_path, recipe):
    values = yaml.safe_load(recipe.read_text())
    values['stages']['seeing']['phases'] = [{'steps': 1, 'frames': 4, 'streams': 2}]
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    gradients = []
    for rank in range(2):
        one = Lonely(rank, 2)
        run = Run(Recipe.read(recipe), tmp_path / f'alone{rank}', torch.device('cpu'), one)
        assert run.train(0, until=float('inf'))
        gradients.append(one.gradients)
    means = [(a + b) / 2 for a, b in zip(*gradients, strict=True)]
    length = torch.stack([mean.norm() for mean in means]).norm()
    assert not gradients[0][0].equal(gradients[1][0])

    together(tmp_path / 'both', recipe, 'seeing')
    saved = torch.load(tmp_path / 'both/seeing.pt', weights_only=True)
    # Of the clipped gradient the optimizer's first moments are a tenth after one step. It keeps
    # matrices first.
    moments = [state['exp_avg'] for state in saved['optimizer']['state'].values()]
    for mean, moment in zip(sorted(means, key=lambda m: m.dim() == 1), moments, strict=True):
        torch.testing.assert_close(moment, mean * min(1, 1 / length) / 10, rtol=1e-3, atol=1e-7)


class Lonely(Group):
    """A process of a group that hears nothing of the others, and writes."""

    @property
    def leads(self):
        return True

    def agree(self, value):
        return value

    def add_up(self, tensors, divide=False):
        if divide:
            object.__setattr__(self, 'gradients', [tensor.clone() for tensor in tensors])
