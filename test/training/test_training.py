"""Training runs through all its stages, and goes on where it was stopped."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.model.config import ModelConfig
from infinitevl_ros.world.questions import SIDES, THINGS
from infinitevl_ros.world.scene import ROOMS, Seen, View
from training import trainer
from training.__main__ import CONFIGS, Recipe, Run, main
from training.checkpoint import config_values, initial_tensors, make_tokenizer
from training.data import IGNORED, KINDS, Phase, Pool
from training.seeing import FACTS, PRESENCE, SIDE, Seeing, truth
from training.trainer import Student


def train(folder, stage):
    config = str(CONFIGS / 'smoke.yaml')
    return main([stage, '--folder', str(folder), '--config', config, '--device', 'cpu'])


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
            0 if stage.full_attention else 3
        )
    assert train(tmp_path, 'all') == 0
    assert capsys.readouterr().out == ''  # there is nothing left to do


def test_a_stage_says_what_it_is_missing(tmp_path):
    with pytest.raises(SystemExit, match='run stage instruct first'):
        train(tmp_path, 'long')


def test_a_stage_nobody_knows_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(tmp_path, 'fast')
    assert 'unknown stage fast: expected all, seeing, teacher' in capsys.readouterr().err


@pytest.fixture
def recipe():
    return Recipe.read(CONFIGS / 'smoke.yaml')


def tensors_of(recipe, folder, number):
    return load_file(folder / recipe.stages[number].name / 'model.safetensors')


@pytest.mark.parametrize('number', [0, 1])
def test_a_run_that_is_stopped_and_resumed_is_the_same_run(tmp_path, recipe, monkeypatch, number):
    whole, stopped, resumed = (
        Run(recipe, tmp_path / folder, torch.device('cpu')) for folder in ('whole', 'part', 'part')
    )
    for before in range(number):
        for run in (whole, stopped):
            assert run.train(before, until=float('inf'))
    assert whole.train(number, until=float('inf'))
    calls = iter(range(100))
    monkeypatch.setattr(trainer.time, 'monotonic', lambda: next(calls))
    assert not stopped.train(number, until=2)
    with pytest.raises(SystemExit, match=f'run stage {recipe.stages[number].name} first'):
        stopped.train(number + 1, until=2)
    assert resumed.train(number, until=float('inf'))
    expected, found = (tensors_of(recipe, tmp_path / name, number) for name in ('whole', 'part'))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_a_stage_trains_what_it_says_alone(tmp_path, recipe):
    run = Run(recipe, tmp_path, torch.device('cpu'))
    before = {name: p.bfloat16() for name, p in run._student(0).parameters.items()}
    for number, part in enumerate(('visual.', 'model.', '.self_attn.')):
        assert run.train(number, until=float('inf'))
        after = tensors_of(recipe, tmp_path, number)
        changed = {n for n in after if n in before and not after[n].equal(before[n])}
        assert changed
        assert all(part in name for name in changed)
        before = after


def test_the_truth_about_a_frame_is_what_its_view_tells():
    view = View(
        'office', True, None, 42, False,
        (Seen('ball', 'red', 'left'), Seen('cup', 'blue', 'right', sure=False)), ('green box',),
    )  # fmt: skip
    row = truth(view)
    facts = dict(zip(FACTS, row, strict=False))
    assert facts == {
        'room': list(ROOMS).index('office'), 'light': 1, 'door': IGNORED, 'person': 0,
        'tens': 4, 'ones': 2,
    }  # fmt: skip
    presence = dict(zip(THINGS, row[PRESENCE:SIDE], strict=True))
    assert {name for name, here in presence.items() if here == 1} == {'red ball', 'blue cup'}
    assert {name for name, here in presence.items() if here == IGNORED} == {'green box'}
    sides = dict(zip(THINGS, row[SIDE:], strict=True))
    assert {name: side for name, side in sides.items() if side != IGNORED} == {
        'red ball': list(SIDES).index('left')
    }
    nothing = truth(View('hall', False, True, None, None, ()))
    assert nothing[list(FACTS).index('tens')] == nothing[list(FACTS).index('person')] == IGNORED


def test_a_tower_learns_to_see_and_its_tally_is_right(recipe):
    """Sixteen frames by heart, told apart by their room and light at least."""
    settings = replace(recipe.worlds, first=1, slots=1, per_step=0)
    stage = recipe.stages[0]
    config = ModelConfig.from_dict(config_values(recipe.sizes, make_tokenizer(), 512), 'a test')
    student = Student(config, initial_tensors(config, recipe.seed), torch.device('cpu'))
    task = Seeing(student, settings, recipe.seed, recipe.seed)
    pool = Pool(settings, recipe.seed, student.device)
    pool.advance(0)
    batch = next(task.batches(Phase(1, 16, 1), 0))
    learning = [p.requires_grad_() for n, p in student.parameters.items() if stage.learns(n)]
    optimizer = torch.optim.AdamW(
        [*learning, *(p.requires_grad_() for p in task.parameters.values())], 0.01
    )
    losses = []
    for _ in range(60):
        frames = pool.frames.flatten(0, 1)[batch.frames]
        loss, counts = task.loss(student.weights(), frames, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    right, asked = dict(zip(KINDS, counts.tolist(), strict=True))['room']
    assert asked == 16
    assert right == 16
    told = batch.truth != IGNORED
    asked_of_signs = dict(zip(KINDS, counts[:, 1].tolist(), strict=True))['sign']
    assert asked_of_signs == int(told[:, list(FACTS).index('ones')].sum())


def test_the_pool_keeps_tokens_of_what_it_holds_and_of_what_comes(recipe):
    settings = replace(recipe.worlds, first=2, slots=2, per_step=1)
    pool = Pool(settings, recipe.seed, torch.device('cpu'))
    pool.advance(0)
    numbers = torch.tensor([3, settings.frames + 5])
    assert pool.pictures(numbers).equal(pool.frames.flatten(0, 1)[numbers])

    def see(frames):
        return frames.float().mean((1, 2))[:, None]

    pool.see_with(see)
    for clock in range(2):  # a world is exchanged
        before = pool.frames.clone()
        pool.advance(clock)
        assert before.equal(pool.frames) == (clock == 0)
        assert pool.pictures(numbers).equal(see(pool.frames.flatten(0, 1)[numbers]))
    pool.see_with(None)
    assert pool.pictures(numbers).dtype == torch.uint8
