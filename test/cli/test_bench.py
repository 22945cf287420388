"""infinitevl bench, on the small random network."""

import json

import pytest

from infinitevl_ros.cli.main import main


def test_bench_prints_a_table_and_writes_every_figure(tmp_path, capsys):
    file = tmp_path / 'bench.json'
    quick = ['--repeats', '2', '--frames', '6', '--seconds', '0.5', '--json', str(file)]
    assert main(['bench', '--shape', 'small', '--random-weights', '--device', 'cpu', *quick]) == 0
    result = json.loads(file.read_text())
    assert {'shape', 'precision', 'hardware', 'versions', 'commit'} <= result.keys()
    for name in ('empty', 'half', 'full'):
        assert 0 < result['frame_ms'][name]['median'] <= result['frame_ms'][name]['p99']
    assert result['decode_ms'] > result['floor']['decode_ms'] > 0
    assert result['frame_ms']['full']['median'] > result['floor']['frame_ms'] > 0
    assert result['first_token_ms'] > 0
    assert result['streaming']['frames'] == 15
    assert result['dropped'] == result['streaming']['dropped']
    assert result['growth']['frames'] == [3, 6]
    assert result['growth_bytes'] == result['growth']['bytes'][1] - result['growth']['bytes'][0]
    table = capsys.readouterr().out
    assert 'frame, window full [ms]' in table
    assert f'{result["decode_ms"]:.2f}' in table


def test_bench_of_a_checkpoint(checkpoint, tmp_path):
    file = tmp_path / 'bench.json'
    quick = ['--repeats', '1', '--frames', '4', '--seconds', '0.2', '--json', str(file)]
    assert (
        main(['bench', str(checkpoint), '--device', 'cpu', '--precision', 'float32', *quick]) == 0
    )
    assert json.loads(file.read_text())['shape'] == checkpoint.name


@pytest.mark.parametrize(
    'arguments', [[], ['--shape', '4b'], ['folder', '--shape', 'small', '--random-weights']]
)
def test_bench_must_be_told_what_to_measure(arguments, capsys):
    assert main(['bench', *arguments]) == 2
    assert 'give a checkpoint folder, or --shape and --random-weights' in capsys.readouterr().err
