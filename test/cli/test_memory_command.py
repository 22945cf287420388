"""infinitevl memory, on memories of the small random network."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from infinitevl_ros.cli.main import main

FIRST = 1_700_000_000_123_456_789
STEP = 500_000_000
KINDS = ['keys', 'values', 'conv', 'recurrent', 'counters']


@pytest.fixture(scope='module')
def saved(engine, tmp_path_factory):
    """Files of one stream: before its first frame, after 2 and after 5."""
    folder = tmp_path_factory.mktemp('memories')
    memory, random = engine.new_memory(), np.random.default_rng(0)
    memory.save(folder / '0.safetensors')
    for i in range(5):
        frame = random.integers(0, 256, (60, 80, 3), np.uint8)
        engine.ingest(memory, frame, FIRST + i * STEP)
        if i in (1, 4):
            memory.save(folder / f'{i + 1}.safetensors')
    return folder


def rewritten(source, target, metadata=(), change=lambda tensors: None):
    """A copy of a saved memory with other metadata or tensors."""
    with safe_open(source, framework='pt') as file:
        values = file.metadata() | dict(metadata)
    tensors = load_file(source)
    change(tensors)
    save_file(tensors, target, values)
    return str(target)


def test_show_tells_what_a_memory_holds(saved, engine, tmp_path, capsys):
    file, target = saved / '5.safetensors', tmp_path / 'show.json'
    assert main(['memory', 'show', str(file), '--json', str(target)]) == 0
    printed, result = capsys.readouterr().out, json.loads(target.read_text())
    memory = engine.new_memory()
    memory.load(file)
    info = memory.describe()
    assert result['frames'] == 5
    assert result['model'] == engine.name
    assert result['fingerprint'] == engine.weights.fingerprint
    assert result['frame_size'] == '112 x 112'
    assert result['tokens'] == info.tokens > 5 * engine.tokens_per_frame
    ring = engine.weights.config.sliding_window + engine.tokens_per_frame
    assert result['ring'] == ring
    assert result['ring_filled'] == min(info.tokens, ring)
    assert (result['first_stamp'], result['newest_stamp']) == (FIRST, FIRST + 4 * STEP)
    assert result['elapsed'] == 4 * STEP
    assert result['file_bytes'] == file.stat().st_size
    assert list(result['kinds']) == KINDS
    assert sum(kind['bytes'] for kind in result['kinds'].values()) == memory.nbytes
    squares = [memory.state[n].double().square().sum() for n in memory.state.tensors
               if n.endswith('.recurrent')]  # fmt: skip
    assert result['kinds']['recurrent']['tensors'] == len(squares)
    assert result['kinds']['recurrent']['norm'] == pytest.approx(float(sum(squares)) ** 0.5)
    assert '2023-11-14T22:13:20.123Z (1700000000.123456789 s)' in printed
    assert 'elapsed        2.000000000 s' in printed
    assert max(map(len, printed.replace(str(file), '').splitlines())) <= 100
    for kind in KINDS:
        assert f'\n{kind} ' in printed


def test_show_of_an_empty_memory_and_of_one_gone_wrong(saved, tmp_path, capsys):
    assert main(['memory', 'show', str(saved / '0.safetensors')]) == 0
    assert 'first stamp    none' in capsys.readouterr().out

    def spoil(tensors):
        name = next(name for name in tensors if name.endswith('.recurrent'))
        tensors[name].view(-1)[:3] = float('nan')

    wrong = rewritten(saved / '5.safetensors', tmp_path / 'wrong.safetensors', change=spoil)
    assert main(['memory', 'show', wrong, '--json', '-']) == 0
    kind = json.loads(capsys.readouterr().out)['kinds']['recurrent']
    assert (kind['not_finite'], kind['norm']) == (3, None)
    # The same bits are equal, also where they are no numbers.
    assert main(['memory', 'diff', wrong, wrong]) == 0
    assert main(['memory', 'diff', wrong, str(saved / '5.safetensors')]) == 1
    assert 'not comparable' in capsys.readouterr().out


def test_diff_of_equal_memories(saved, tmp_path, capsys):
    copy = shutil.copy(saved / '5.safetensors', tmp_path / 'copy.safetensors')
    assert main(['memory', 'diff', str(saved / '5.safetensors'), str(copy)]) == 0
    assert 'equal' in capsys.readouterr().out


def test_diff_of_one_stream_at_two_times(saved, tmp_path, capsys):
    files = [str(saved / '2.safetensors'), str(saved / '5.safetensors')]
    target = tmp_path / 'diff.json'
    assert main(['memory', 'diff', *files, '--layers', '--json', str(target)]) == 1
    printed, result = capsys.readouterr().out, json.loads(target.read_text())
    assert result['same_model']
    assert not result['equal']
    assert result['metadata']['frames'] == ['2', '5']
    assert set(result['metadata']) == {'frames', 'elapsed', 'newest_stamp'}
    assert set(result['counters']) >= {'tokens', 'cursor'}
    a, b = (load_file(file) for file in files)
    name = next(name for name in a if name.endswith('.recurrent'))
    norm = max(a[name].norm(), b[name].norm())
    assert result['layers'][name] == pytest.approx(float((a[name] - b[name]).norm() / norm))
    assert set(result['layers']) == {name for name in a if name.startswith('layers.')}
    assert set(result['kinds']) == set(KINDS[:-1])
    assert all(0 < share < 2 for share in result['kinds'].values())
    assert 'different, same model' in printed
    assert 'frames         a 2\n               b 5' in printed
    assert name in printed
    assert main(['memory', 'diff', *files]) == 1
    assert name not in capsys.readouterr().out


def test_diff_of_one_value_and_of_other_models(saved, tmp_path, capsys):
    source = saved / '5.safetensors'
    name = next(name for name in load_file(source) if name.endswith('.conv'))

    def change(tensors):
        tensors[name].view(-1)[7] += 1

    def shorten(tensors):
        tensors[name] = tensors[name][:, :-1].contiguous()

    other = rewritten(source, tmp_path / 'value.safetensors', change=change)
    assert main(['memory', 'diff', str(source), other, '--json', '-', '--layers']) == 1
    result = json.loads(capsys.readouterr().out)
    assert [layer for layer, share in result['layers'].items() if share] == [name]
    assert result['same_model']
    assert not result['metadata']

    other = rewritten(source, tmp_path / 'model.safetensors', {'fingerprint': 'ab'}, shorten)
    assert main(['memory', 'diff', str(source), other]) == 1
    printed = capsys.readouterr().out
    assert 'different models' in printed
    assert f'{name}: a float32 ' in printed


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['show', 'none.safetensors'], 'none.safetensors: no such file'),
        (['show', 'text.safetensors'], 'text.safetensors: not a readable memory'),
        (['show', 'cut.safetensors'], 'cut.safetensors: not a readable memory'),
        (['show', 'model.safetensors'], 'model.safetensors: not a saved visual memory'),
        (['show', 'old.safetensors'], 'old.safetensors: version 1; this software reads 3'),
        (['show', 'frames.safetensors'], 'frames is many, expected a number'),
        (['show', 'tokens.safetensors'], 'no counter of tokens'),
        (['diff', 'good.safetensors', 'none.safetensors'], 'none.safetensors: no such file'),
        (['diff', 'good.safetensors'], 'diff takes 2 files, 1 given'),
    ],
)
def test_bad_input_is_said_in_one_line(
    saved, checkpoint, tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    good = saved / '2.safetensors'
    shutil.copy(good, 'good.safetensors')
    (tmp_path / 'text.safetensors').write_text('no memory')
    (tmp_path / 'cut.safetensors').write_bytes(good.read_bytes()[:-100])
    shutil.copy(checkpoint / 'model.safetensors', tmp_path)
    rewritten(good, 'old.safetensors', {'version': '1'})
    rewritten(good, 'frames.safetensors', {'frames': 'many'})
    rewritten(good, 'tokens.safetensors', change=lambda tensors: tensors.pop('tokens'))
    assert main(['memory', *arguments]) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith('infinitevl memory: ')
    assert said in line
    assert not output.out
