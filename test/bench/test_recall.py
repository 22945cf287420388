"""bench/recall.py counts right, and runs as it is documented."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.recall import (
    Asked,
    Load,
    Model,
    _recurrent,
    _reduce,
    draw,
    score,
    summary,
    until_half,
    wilson,
)
from infinitevl_ros.engine import Options, StreamingEngine
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.world.patrol import plan
from infinitevl_ros.world.wordings import WORDINGS

ROOT = Path(__file__).parents[2]
WINDOW = 16


def asked(kind, right, age=0, things=(), truth='yes', answer=None):
    answer = answer if answer is not None else truth if right else 'maybe'
    return Asked('hybrid', kind, '?', truth, answer, age, 0, things)


def test_the_interval_is_wilsons():
    low, high = wilson(50, 100)
    assert low == pytest.approx(0.4038, abs=1e-4)
    assert high == pytest.approx(0.5962, abs=1e-4)
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_chance_is_what_the_best_constant_answer_of_each_kind_gets():
    lines = [asked('room', True, truth=room) for room in ('hall', 'hall', 'studio')]
    lines += [asked('light', False, truth=light) for light in ('yes', 'no')]
    figures = score(lines)
    assert figures['accuracy'] == pytest.approx(3 / 5)
    assert figures['chance'] == pytest.approx(3 / 5)
    assert figures['questions'] == 5


def test_questions_are_sorted_by_kind_and_by_the_age_of_their_evidence():
    lines = [
        asked('room', True),
        asked('light', False),
        asked('where', True, age=WINDOW),
        asked('where', False, age=10 * WINDOW),
        asked('sign then', True, age=10 * WINDOW),
        asked('where', True, age=100 * WINDOW),
        asked('where', False, age=35 * WINDOW),  # between ten and a hundred
        asked('seen', True, age=None, truth='no'),
    ]
    figures = summary(lines, WINDOW)
    assert figures['present']['questions'] == 2
    assert figures['present']['accuracy'] == 0.5
    assert figures['one_window']['accuracy'] == 1
    assert figures['ten_windows'] == {**figures['ten_windows'], 'accuracy': 0.5, 'questions': 2}
    assert figures['hundred_windows']['questions'] == 1
    assert figures['where']['ten_windows']['accuracy'] == 0
    assert figures['never_seen']['questions'] == 1
    assert sum(one['questions'] for one in figures['by_age']) == 5
    assert figures['by_type']['where']['questions'] == 4
    assert set(figures['by_type']) == set(WORDINGS)


def test_a_caption_names_all_objects_that_came():
    lines = [
        asked('caption', True, things=('red ball',), truth='a red ball came into view'),
        asked('caption', False, things=('red ball',), answer='a red ball'),
        asked('caption', False, things=('red ball', 'blue cup'), answer='a red ball'),
        asked('caption', False, things=()),
    ]
    assert summary(lines, WINDOW)['captions_name_the_object'] == pytest.approx(2 / 3)


def test_it_runs_and_writes_every_figure(tmp_path):
    command = [sys.executable, 'bench/recall.py', '--worlds', '1', '--frames', '16', '--asks', '1']
    command += ['--device', 'cpu', '--workers', '1']
    command += ['--json', str(tmp_path / 'r.json'), '--plot', str(tmp_path / 'r.png')]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / 'r.json').read_text())
    assert set(report['models']) == {'hybrid', 'cleared', 'teacher'}
    for figures in report['models'].values():
        assert {'present', 'one_window', 'ten_windows', 'hundred_windows'} <= figures.keys()
        assert figures['by_type']['room']['accuracy'] == 1
    assert 'present' in result.stdout
    assert (tmp_path / 'r.png').stat().st_size > 5000


class Repeats:
    """An engine that takes frames and says one thing."""

    def __init__(self):
        self.frames = 0

    def new_memory(self):
        return None

    def ingest(self, memory, frame, stamp):
        self.frames += 1

    def ask(self, memory, question, sampling):
        return ['yes']


@pytest.mark.parametrize(('context', 'watched'), [(None, 24), (10, 10)])
def test_a_model_with_a_context_watches_no_longer_than_that(context, watched):
    patrol = plan(5, 24)
    frames = np.stack([picture for picture, _ in patrol])
    engine = Repeats()
    model = Model('teacher', engine, context=context)
    asked = list(model.watch(patrol, frames, [8, 20], world=1))
    assert engine.frames == watched
    kinds = [one.kind for one in asked]
    assert kinds.count('room') == (2 if context is None else 1)


@pytest.fixture(scope='module')
def engine():
    return StreamingEngine.from_checkpoint(default_checkpoint(), options=Options(cameras=2))


def test_states_are_reduced_to_the_rank_asked_for(engine):
    memory, reduced = engine.new_memory(), engine.new_memory()
    for number, (picture, _) in enumerate(plan(6, 40)):
        engine.ingest(memory, picture, number * 10**8)
    for rank in (64, 3):
        reduced.copy_(memory)
        _reduce(reduced, rank)
        for state, wanted in zip(_recurrent(reduced), _recurrent(memory), strict=True):
            off = float((state - wanted).norm() / wanted.norm())
            if rank == 64:
                assert off < 1e-5
            else:
                assert off > 1e-3
                assert int(torch.linalg.matrix_rank(state, rtol=1e-4).max()) == rank
    assert reduced.frames == memory.frames == 40


def test_what_is_asked_of_a_reduced_state_leaves_the_stream_as_it_was(engine):
    """The last interview of two says the same as if the first had never been."""
    patrol = plan(7, 40)
    frames = np.stack([picture for picture, _ in patrol])
    model = Model('hybrid', engine, rank=64)
    both = list(model.watch(patrol, frames, [20, 40], world=1))
    whole = list(Model('hybrid', engine).watch(patrol, frames, [20, 40], world=1))
    assert [one.answer for one in both] == [one.answer for one in whole]
    few = list(Model('hybrid', engine, rank=1).watch(patrol, frames, [20, 40], world=1))
    assert [one.question for one in few] == [one.question for one in whole]
    assert [one.answer for one in few] != [one.answer for one in whole]


def test_a_curve_ends_with_its_first_point_under_one_half(engine, tmp_path):
    shares = iter((0.9, None, 0.5, 0.4, 0.3))
    assert [one['accuracy'] for one in until_half({'accuracy': x} for x in shares)] == [
        0.9, None, 0.5, 0.4,
    ]  # fmt: skip
    point = Load(engine, worlds=1, seed=0, workers=1, window=WINDOW, frames=20).where(12)
    assert (point['rooms'], point['things'], point['questions']) == (4, 12, 0)
    point |= {'accuracy': 0.9, 'low': 0.8, 'high': 0.95}
    curves = {'things': [point], 'rank': [{'rank': 8, **point}]}
    draw(
        {'hybrid': summary([asked('where', True, age=9)] * 5, WINDOW)},
        curves,
        tmp_path / 'curves.png',
    )
    assert (tmp_path / 'curves.png').stat().st_size > 5000
