"""infinitevl bench, on the small random network."""

import argparse
import json

import pytest

from infinitevl_ros.cli import bench
from infinitevl_ros.cli.main import main
from infinitevl_ros.model.checkpoint import load_config


def test_bench_prints_a_table_and_writes_every_figure(tmp_path, capsys):
    file = tmp_path / 'bench.json'
    quick = ['--repeats', '2', '--frames', '6', '--seconds', '0.5', '--json', str(file)]
    assert main(['bench', '--shape', 'small', '--random-weights', '--device', 'cpu', *quick]) == 0
    result = json.loads(file.read_text())
    assert {'shape', 'precision', 'hardware', 'versions', 'commit'} <= result.keys()
    for name in ('empty', 'half', 'full'):
        assert 0 < result['frame_ms'][name]['median'] <= result['frame_ms'][name]['p99']
    staged = result['frame_staged_ms']
    assert result['floor']['frame_ms'] < staged['median'] <= staged['p99']
    assert result['decode_ms'] > result['floor']['decode_ms'] > 0
    assert result['frame_ms']['full']['median'] > result['floor']['frame_ms'] > 0
    assert result['first_token_ms'] > 0
    streaming = result['streaming']
    assert streaming['frames'] == 15
    assert streaming['latency_max_ms'] >= streaming['latency_ms']['p99'] > 0
    assert result['dropped'] == result['streaming']['dropped']
    assert result['growth']['frames'] == [3, 6]
    assert result['growth_bytes'] == result['growth']['bytes'][1] - result['growth']['bytes'][0]
    table = capsys.readouterr().out
    assert 'frame, window full [ms]' in table
    assert f'made in staging [ms]{staged["median"]:11.2f}' in table
    assert f'{result["decode_ms"]:.2f}' in table
    assert f'longest {streaming["latency_max_ms"]:.1f}' in table


def test_bench_of_a_checkpoint_takes_its_sizes(checkpoint, tmp_path):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    where = ['--device', 'cpu', '--precision', 'float32']
    weights, prompt, size = bench.load(parser.parse_args([str(checkpoint), *where]), tmp_path)
    assert size == (112, 112)
    assert weights.config == load_config(checkpoint)
    assert prompt.decode(prompt.encode('a red cup')) == 'a red cup'


@pytest.mark.parametrize(
    'arguments', [[], ['--shape', '4b'], ['folder', '--shape', 'small', '--random-weights']]
)
def test_bench_must_be_told_what_to_measure(arguments, capsys):
    assert main(['bench', *arguments]) == 2
    assert 'give a checkpoint folder, or --shape and --random-weights' in capsys.readouterr().err
