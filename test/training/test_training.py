"""Training runs through all its stages, and goes on where it was stopped."""

import json

import pytest
import torch
from safetensors.torch import load_file

from infinitevl_ros.engine import StreamingEngine
from training import trainer
from training.__main__ import CONFIGS, Recipe, Run, main


def train(folder, stage):
    config = str(CONFIGS / 'smoke.yaml')
    return main([stage, '--run', str(folder), '--config', config, '--device', 'cpu'])


def test_all_stages_leave_checkpoints_that_an_engine_runs(tmp_path, capsys):
    assert train(tmp_path, 'all') == 0
    recipe = Recipe.read(CONFIGS / 'smoke.yaml')
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [line['stage'] for line in lines] == [stage.name for stage in recipe.stages]
    assert lines[-1]['clock'] == sum(stage.steps for stage in recipe.stages)
    assert (tmp_path / 'curve.png').stat().st_size > 5000
    assert capsys.readouterr().out.count('Finished') == len(recipe.stages)
    for stage in recipe.stages:
        engine = StreamingEngine.from_checkpoint(tmp_path / stage.name)
        assert engine.tokens_per_frame == 16
        assert engine.weights.config.layer_types.count('linear_attention') == (
            0 if stage.name == 'teacher' else 3
        )
    assert train(tmp_path, 'all') == 0
    assert capsys.readouterr().out == ''  # there is nothing left to do


def test_a_stage_says_what_it_is_missing(tmp_path):
    with pytest.raises(SystemExit, match='run stage instruct first'):
        train(tmp_path, 'long')


def test_a_stage_nobody_knows_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(tmp_path, 'fast')
    assert 'unknown stage fast: expected all, teacher, layers' in capsys.readouterr().err


@pytest.fixture
def recipe():
    return Recipe.read(CONFIGS / 'smoke.yaml')


def tensors_of(recipe, folder):
    return load_file(folder / recipe.stages[0].name / 'model.safetensors')


def test_a_run_that_is_stopped_and_resumed_is_the_same_run(tmp_path, recipe, monkeypatch):
    whole = Run(recipe, tmp_path / 'whole', torch.device('cpu'))
    assert whole.train(0, until=float('inf'))
    calls = iter(range(100))
    monkeypatch.setattr(trainer.time, 'monotonic', lambda: next(calls))
    stopped = Run(recipe, tmp_path / 'stopped', torch.device('cpu'))
    assert not stopped.train(0, until=2)
    with pytest.raises(SystemExit, match='run stage teacher first'):
        stopped.train(1, until=2)
    resumed = Run(recipe, tmp_path / 'stopped', torch.device('cpu'))
    assert resumed.train(0, until=float('inf'))
    expected = tensors_of(recipe, tmp_path / 'whole')
    found = tensors_of(recipe, tmp_path / 'stopped')
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_a_stage_trains_what_it_says_alone(tmp_path, recipe):
    run = Run(recipe, tmp_path, torch.device('cpu'))
    for number, stage in enumerate(recipe.stages[:2]):
        assert run.train(number, until=float('inf'))
        assert (tmp_path / stage.name / 'model.safetensors').exists()
    before, after = (load_file(tmp_path / s.name / 'model.safetensors') for s in recipe.stages[:2])
    changed = {name for name in after if name in before and not after[name].equal(before[name])}
    assert changed
    assert all('.self_attn.' in name for name in changed)
