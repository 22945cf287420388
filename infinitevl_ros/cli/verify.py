"""Compare the network with golden vectors: what its authors' own code gave."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..model import decoder, vision
from ..model.checkpoint import load_checkpoint
from ..model.config import CheckpointError
from ..model.state import StreamState
from ..model.weights import Weights
from . import output

TOLERANCE = 2e-4
EXPECTED = 'expected.safetensors'


@dataclass(frozen=True)
class Quantity:
    """One compared tensor: the largest absolute difference; for tokens, how many differ."""

    name: str
    difference: float
    exact: bool = False

    def within(self, tolerance: float) -> bool:
        """Whether it agrees; a difference that is not a number never does."""
        return self.difference <= (0 if self.exact else tolerance)


@torch.no_grad()
def compare(
    folder: str | Path, chunk: int | None = None, ring_start: int = 0, device: str = 'cpu'
) -> list[Quantity]:
    """Run the stream, the question and the greedy answer of a folder laid out like golden/tiny.

    Tokens are fed `chunk` at a time (default: frame by frame, each with what precedes it);
    `ring_start` is the ring slot of the first token. Raises CheckpointError.
    """
    folder = Path(folder)
    weights = load_checkpoint(folder, device)
    file = folder / EXPECTED
    if not file.is_file():
        raise CheckpointError(f'{file}: missing; it holds the outputs to compare with')
    try:
        expected = load_file(file, device)
        return list(_compare(weights, expected, chunk, ring_start))
    except KeyError as error:
        raise CheckpointError(f'{file}: no tensor {error}') from None
    except (SafetensorError, RuntimeError, IndexError, ValueError) as error:
        raise CheckpointError(f'{file}: does not fit the checkpoint: {error}') from None


def _compare(
    weights: Weights, expected: dict[str, Tensor], chunk: int | None, ring_start: int
) -> Iterator[Quantity]:
    rows, columns = expected['grid_thw'][0, 1:].tolist()
    frames = vision.encode(weights, expected['pixel_values'], (rows, columns))
    yield _quantity('vision_embeds', frames, expected)

    first = len(expected['first_input_ids'])
    start = decoder.embed(weights, expected['first_input_ids'][: first - frames.shape[1]])
    stream = torch.cat((start, frames.flatten(0, 1)))
    later = expected['stream_position_ids'].transpose(0, 1).flatten(1)
    positions = torch.cat((expected['first_position_ids'], later), 1)
    state = StreamState(weights.config, chunk or first, weights.device)
    state['cursor'].fill_(ring_start % state.ring)

    def feed(x: Tensor, positions: Tensor, sizes: list[int] | int) -> Tensor:
        parts = zip(x.split(sizes), positions.split(sizes, 1), strict=True)
        return torch.cat([decoder.decode(weights, x[None], p[None], state)[0] for x, p in parts])

    sizes = chunk or [first] + [frames.shape[1]] * (len(frames) - 1)
    hidden = feed(stream, positions, sizes)
    yield _quantity('hidden_first', hidden[:first], expected)
    yield _quantity('hidden_stream', hidden[first:].unflatten(0, (len(frames) - 1, -1)), expected)
    for name in sorted(expected):
        if name.startswith('state.'):
            yield _quantity(name, _memory(state, name, expected[name]), expected)

    x = decoder.embed(weights, expected['query_input_ids'])
    scores = decoder.logits(weights, feed(x, expected['query_position_ids'], chunk or len(x)))
    yield _quantity('query_logits', scores, expected)
    position = expected['query_position_ids'].max()
    tokens, steps = [], []
    for i in range(len(expected['decode_tokens'])):
        tokens.append(int(scores[-1].argmax()))
        x = decoder.embed(weights, scores[-1:].argmax(-1))
        scores = decoder.logits(weights, feed(x, (position + 1 + i).expand(3, 1), 1))
        steps.append(scores[-1])
    yield _quantity('decode_logits', torch.stack(steps), expected)
    wrong = (torch.tensor(tokens) != expected['decode_tokens'].cpu()).sum()
    yield Quantity('decode_tokens', float(wrong), exact=True)


def _quantity(name: str, found: Tensor, expected: dict[str, Tensor]) -> Quantity:
    wanted = expected[name]
    if found.shape != wanted.shape:
        raise CheckpointError(
            f'{name}: the network gives {list(found.shape)}, the file holds {list(wanted.shape)}'
        )
    return Quantity(name, float((found.double() - wanted.double()).abs().max()))


def _memory(state: StreamState, name: str, wanted: Tensor) -> Tensor:
    """The part of the state that a golden `state.layers.N.what` describes."""
    _, _, layer, what = name.split('.')
    if what in ('keys', 'values'):
        # The last tokens, oldest first.
        length = wanted.shape[1]
        steps = torch.arange(length, device=wanted.device)
        slots = (state['cursor'] - length + steps) % state.ring
        return state.layer(int(layer), what)[0, :, slots]
    if what == 'recurrent_state':
        return state.layer(int(layer), 'recurrent')[0]
    width = state.config.conv_size
    steps = torch.arange(width, device=wanted.device)
    conv = state.layer(int(layer), 'conv')[0, (state['tokens'] + steps) % width]
    return conv.split(state.config.linear_splits[:3], 1)['qkv'.index(what[-1])].T


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', help=f'a checkpoint folder that also holds {EXPECTED}')
    parser.add_argument(
        '--tolerance',
        type=float,
        default=TOLERANCE,
        help='largest difference that passes (default: %(default)s)',
    )
    output.add_json(parser)
    parser.add_argument('--device', default='cpu', help='where to run (default: %(default)s)')


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each quantity; 1 when one is over the tolerance."""
    if not 0 <= arguments.tolerance < float('inf'):
        raise ValueError(f'--tolerance is {arguments.tolerance}, expected 0 or more')
    output.check_outputs(arguments.json)
    file, found = output.results(arguments), []
    for quantity in compare(arguments.folder, device=arguments.device):
        good = quantity.within(arguments.tolerance)
        value = (
            f'{quantity.difference:.0f} differ' if quantity.exact else f'{quantity.difference:.2e}'
        )
        print(f'{"ok  " if good else "FAIL"} {quantity.name:36} {value}', file=file)
        found.append({'name': quantity.name, 'difference': quantity.difference, 'good': good})
    failed = sum(not one['good'] for one in found)
    if failed:
        print(f'{failed} over the tolerance of {arguments.tolerance:g}', file=sys.stderr)
    output.write_json(
        arguments.json, {'tolerance': arguments.tolerance, 'failed': failed, 'quantities': found}
    )
    return 1 if failed else 0
