"""The network against outputs of its authors' own code."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from infinitevl_ros.cli.verify import TOLERANCE, compare
from infinitevl_ros.model import decoder, vision
from infinitevl_ros.model.checkpoint import load_checkpoint
from infinitevl_ros.model.state import StreamState


def agrees(quantities):
    names = {quantity.name for quantity in quantities}
    assert {'vision_embeds', 'hidden_first', 'hidden_stream', 'decode_tokens'} <= names
    return [q for q in quantities if not q.within(TOLERANCE)] == []


@pytest.mark.parametrize('chunk', [None, 1, 7, 36, 253])
def test_every_quantity_agrees_however_the_tokens_are_fed(golden, chunk):
    assert agrees(compare(golden / 'tiny', chunk=chunk))


@pytest.mark.parametrize('ring_start', [1, 60, 132])
def test_every_quantity_agrees_from_another_ring_start(golden, ring_start):
    assert agrees(compare(golden / 'tiny', ring_start=ring_start))


def test_the_ring_may_start_anywhere(golden):
    """All 133 starts as one batch: the stream and the question from each of them."""
    weights = load_checkpoint(golden / 'tiny')
    expected = load_file(golden / 'tiny' / 'expected.safetensors')
    state = StreamState(weights.config, block=37, rows=133)
    assert state.ring == 133
    state['cursor'].copy_(torch.arange(133))
    start = decoder.embed(weights, expected['first_input_ids'][:1])
    frames = vision.encode(weights, expected['pixel_values'], (12, 12)).flatten(0, 1)
    question = decoder.embed(weights, expected['query_input_ids'])
    later = expected['stream_position_ids'].transpose(0, 1).flatten(1)
    positions = expected['first_position_ids'], later, expected['query_position_ids']
    x, positions = torch.cat((start, frames, question)), torch.cat(positions, 1)
    with torch.no_grad():
        hidden = decoder.decode(
            weights, x.expand(133, -1, -1), positions.expand(133, -1, -1), state
        )
        scores = decoder.logits(weights, hidden[:, len(start) + len(frames) :])
    wanted = torch.cat((expected['hidden_first'], expected['hidden_stream'].flatten(0, 1)))
    assert (hidden[:, : len(wanted)] - wanted).abs().max() <= TOLERANCE
    assert (scores - expected['query_logits']).abs().max() <= TOLERANCE


def test_streams_of_a_batch_do_not_mix(golden):
    """Three streams of other lengths and other places in the ring, as one batch."""
    weights = load_checkpoint(golden / 'tiny')
    random = torch.Generator().manual_seed(0)
    batch = StreamState(weights.config, block=24, rows=3)
    singles = []
    for i, (length, cursor) in enumerate(((1, 5), (50, 119), (200, 77))):
        single = StreamState(weights.config, block=24)
        single['cursor'].fill_(cursor)
        x = torch.randn(1, length, 64, generator=random)
        decoder.decode(weights, x, torch.arange(length).expand(1, 3, -1) + 7 * i, single)
        singles.append(single)
        for name, tensor in batch.tensors.items():
            tensor[i] = single.tensors[name][0]
    x = torch.randn(3, 24, 64, generator=random)
    positions = (torch.stack([s['largest'] for s in singles]) + 1 + torch.arange(24))[:, None]
    positions = positions.expand(-1, 3, -1)
    together = decoder.decode(weights, x, positions, batch)
    for i, single in enumerate(singles):
        alone = decoder.decode(weights, x[i : i + 1], positions[i : i + 1], single)
        torch.testing.assert_close(together[i], alone[0], atol=5e-5, rtol=0)
        for name, tensor in single.tensors.items():
            torch.testing.assert_close(batch.tensors[name][i], tensor[0], atol=5e-5, rtol=0)


def test_every_expected_tensor_is_compared(golden):
    file = golden / 'tiny' / 'expected.safetensors'
    inputs = {'pixel_values', 'grid_thw'}
    expected = {
        name
        for name in load_file(file)
        if name not in inputs and not name.endswith(('input_ids', 'position_ids'))
    }
    assert {q.name for q in compare(golden / 'tiny')} == expected


def stream(weights, expected):
    """All frames of the golden stream: outputs of the final norm [253, 64], float32."""
    frames = vision.encode(weights, expected['pixel_values'].to(weights.dtype), (12, 12))
    state = StreamState(weights.config, block=36, dtype=weights.dtype)
    assert state.layer(1, 'recurrent').dtype == torch.float32
    start = decoder.embed(weights, expected['first_input_ids'][:1])
    x = torch.cat((start, frames.flatten(0, 1)))[None]
    later = expected['stream_position_ids'].transpose(0, 1).flatten(1)
    positions = torch.cat((expected['first_position_ids'], later), 1)[None]
    return decoder.decode(weights, x, positions, state)[0].float()


def test_bfloat16_is_off_by_rounding_only(golden, tmp_path):
    """Computing in bfloat16 costs no more than twice what rounding the weights alone costs.

    (Random weights amplify: rounding them moves the outputs by 6 %.)
    """
    expected = load_file(golden / 'tiny' / 'expected.safetensors')
    wanted = torch.cat((expected['hidden_first'], expected['hidden_stream'].flatten(0, 1)))
    rounded = {
        name: t.bfloat16() for name, t in load_file(golden / 'tiny' / 'model.safetensors').items()
    }
    shutil.copy(golden / 'tiny' / 'config.json', tmp_path)
    save_file(rounded, tmp_path / 'model.safetensors')

    def error(dtype):
        hidden = stream(load_checkpoint(tmp_path, dtype=dtype), expected)
        return float((hidden - wanted).norm() / wanted.norm())

    assert 0.01 < error(torch.float32) < error(torch.bfloat16) < 2 * error(torch.float32)


@pytest.fixture
def damaged(golden, tmp_path):
    """A copy of the golden folder with one weight a little off."""
    folder = tmp_path / 'damaged'
    shutil.copytree(golden / 'tiny', folder)
    tensors = load_file(folder / 'model.safetensors')
    tensors['model.layers.5.self_attn.v_proj.weight'] *= 1.01
    save_file(tensors, folder / 'model.safetensors')
    return folder


def run_verify(*arguments):
    code = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    command = [sys.executable, '-c', code, 'verify', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_verify_prints_a_line_for_each_quantity(golden):
    result = run_verify(golden / 'tiny')
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(compare(golden / 'tiny'))
    assert all(line.startswith('ok') for line in lines)


def test_verify_fails_on_one_wrong_weight(damaged):
    result = run_verify(damaged)
    assert result.returncode == 1
    assert 'ok   hidden' not in result.stdout
    assert 'FAIL hidden_stream' in result.stdout


def test_verify_honours_the_tolerance(damaged):
    loose = run_verify(damaged, '--tolerance', '10')
    assert 'FAIL hidden_stream' not in loose.stdout


def test_verify_names_a_broken_file(damaged):
    (damaged / 'expected.safetensors').write_bytes(b'junk')
    result = run_verify(damaged)
    assert result.returncode == 2
    assert 'expected.safetensors: does not fit' in result.stderr
    assert 'Traceback' not in result.stderr


def test_verify_says_what_is_missing(checkpoint):
    result = run_verify(checkpoint)
    assert result.returncode == 2
    assert 'expected.safetensors: missing' in result.stderr
