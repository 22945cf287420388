"""`infinitevl memory`: what a saved memory holds, and how two of them differ."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine.memory import NUMBERS, read_numbers
from ..engine.snapshot import MemoryFileError, Snapshot
from ..replay.record import printable
from . import output
from .checks import size

NANOSECONDS = 1_000_000_000
# Two memories with these in common are of the same model, and either may be loaded for the other.
SAME_MODEL = ('fingerprint', 'frame_size', 'stream')
TEXTS = ('model', *SAME_MODEL)
METADATA = (*TEXTS, *NUMBERS)
COUNTERS = 'counters'
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
EPILOG = """examples:
  infinitevl memory show ~/.ros/infinitevl/before_lunch.safetensors
  infinitevl memory diff before.safetensors after.safetensors --layers

diff ends with 0 when the two are equal, 1 when they differ, 2 when one cannot be read.
"""


@dataclass(frozen=True)
class Kind:
    """All tensors of a kind, one a layer: their bytes, norm and values that are not finite."""

    tensors: int
    shape: list[int]
    dtype: str
    bytes: int
    norm: float | None
    not_finite: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument('action', choices=('show', 'diff'), help='of one file, or between two')
    parser.add_argument('files', nargs='+', metavar='FILE', help='a saved memory')
    parser.add_argument('--layers', action='store_true', help='differences of each layer too')
    output.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show or compare; 1 when two memories differ. Raises MemoryFileError."""
    wanted = {'show': 1, 'diff': 2}[arguments.action]
    if len(arguments.files) != wanted:
        raise ValueError(
            f'{arguments.action} takes {wanted} file{"s" if wanted > 1 else ""}, '
            f'{len(arguments.files)} given'
        )
    output.check_outputs(arguments.json, inputs=tuple(map(Path, arguments.files)))
    snapshots = [_read(file) for file in arguments.files]
    if arguments.action == 'show':
        result, text = contents(snapshots[0]), shown
    else:
        result, text = differences(*snapshots), compared
        if not arguments.layers:
            del result['layers']
    if arguments.json != output.STDOUT:
        print(printable(text(result)))
    if arguments.json:
        output.write_json(arguments.json, result)
    return 0 if result.get('equal', True) else 1


def contents(snapshot: Snapshot) -> dict[str, Any]:
    """What a memory holds. Stamps and times in nanoseconds; bytes."""
    values, tensors = snapshot.metadata, snapshot.tensors
    tokens = int(tensors['tokens'].max())
    rings = [tensor.shape[-2] for name, tensor in tensors.items() if name.endswith('.keys')]
    ring = min(rings, default=0)
    return {
        'file': snapshot.source,
        'file_bytes': Path(snapshot.source).stat().st_size,
        **{name: values.get(name) for name in TEXTS},
        **dict.fromkeys(NUMBERS),
        **read_numbers(snapshot),
        'tokens': tokens,
        'ring': ring,
        'ring_filled': min(tokens, ring),
        'kinds': {kind: vars(_kind(parts)) for kind, parts in _kinds(tensors).items()},
    }


def shown(result: dict[str, Any]) -> str:
    """`contents` for people."""
    ring, filled = result['ring'], result['ring_filled']
    lines = [
        f'file           {result["file"]}, {size(result["file_bytes"])}',
        f'model          {result["model"]}, fingerprint {result["fingerprint"]}',
        f'frames         {result["frames"]} of {result["frame_size"]} pixels',
        f'stream         {result["stream"]}',
        f'first stamp    {stamp(result["first_stamp"])}',
        f'newest stamp   {stamp(result["newest_stamp"])}',
        f'elapsed        {seconds(result["elapsed"])} s, without jumps of the clock',
        f'tokens         {result["tokens"]}',
    ]
    if ring:
        lines.append(
            f'window         {filled} of {ring} slots filled ({filled / ring:.0%}); '
            "a frame's worth of them is room for new tokens"
        )
    lines += ['', f'{"kind":12}{"tensors":>8}  {"shape":22}{"dtype":10}{"size":>11}{"norm":>12}']
    for name, kind in result['kinds'].items():
        shape = ' x '.join(map(str, kind['shape'])) if name != COUNTERS else ''
        norm = '' if kind['norm'] is None else f'{kind["norm"]:.4g}'
        lines.append(
            f'{name:12}{kind["tensors"]:8}  {shape:22}{kind["dtype"]:10}'
            f'{size(kind["bytes"]):>11}{norm:>12}'.rstrip()
        )
        if kind['not_finite']:
            lines.append(f'{"":12}{kind["not_finite"]} of its values are not finite')
    return '\n'.join(lines)


def differences(a: Snapshot, b: Snapshot) -> dict[str, Any]:
    """How b differs from a.

    `kinds` and `layers` (by tensor) are norms of the difference over the larger norm of the two:
    0 where every bit is the same, None where shapes or types differ or values are not finite.
    """
    metadata = {
        name: [a.metadata.get(name), b.metadata.get(name)]
        for name in dict.fromkeys((*METADATA, *a.metadata, *b.metadata))
        if a.metadata.get(name) != b.metadata.get(name)
    }
    shared = a.tensors.keys() & b.tensors.keys()
    layers = {name: _relative([a.tensors[name]], [b.tensors[name]]) for name in a.tensors
              if name in shared and _kind_of(name) != COUNTERS}  # fmt: skip
    kinds = {}
    for kind, parts in _kinds(a.tensors).items():
        if kind != COUNTERS and parts.keys() <= shared:
            kinds[kind] = _relative(list(parts.values()), [b.tensors[name] for name in parts])
    counters = {
        name: [a.tensors[name].tolist(), b.tensors[name].tolist()]
        for name in a.tensors
        if name in shared and _kind_of(name) == COUNTERS
        and not _same(a.tensors[name], b.tensors[name])
    }  # fmt: skip
    other = {
        name: [_described(a.tensors.get(name)), _described(b.tensors.get(name))]
        for name in (*a.tensors, *(b.tensors.keys() - shared))
        if _described(a.tensors.get(name)) != _described(b.tensors.get(name))
    }
    same = all(_same(a.tensors[name], b.tensors[name]) for name in shared)
    return {
        'a': a.source,
        'b': b.source,
        'equal': not metadata and not other and same,
        'same_model': not other and not metadata.keys() & set(SAME_MODEL),
        'metadata': metadata,
        'counters': counters,
        'kinds': kinds,
        'tensors': other,
        'layers': layers,
    }


def compared(result: dict[str, Any]) -> str:
    """`differences` for people."""
    lines = [f'a  {result["a"]}', f'b  {result["b"]}']
    if result['equal']:
        return '\n'.join([*lines, 'equal: every tensor and all that is said of them'])
    model = (
        'same model' if result['same_model'] else 'different models: neither loads for the other'
    )
    lines.append(f'different, {model}')
    for name, pair in result['metadata'].items():
        first, second = (_worded(name, value) for value in pair)
        lines += [f'{name:14} a {first}', f'{"":14} b {second}']
    for name, (first, second) in result['counters'].items():
        lines.append(f'{name:14} a {_listed(first)}, b {_listed(second)}')
    for name, (first, second) in list(result['tensors'].items())[:8]:
        lines.append(f'{name}: a {first}, b {second}')
    if (more := len(result['tensors']) - 8) > 0:
        lines.append(f'... and {more} more tensors of other shapes or types')
    lines += ['', 'difference, as a share of the larger norm']
    for part in ('kinds', 'layers'):
        for name, value in result.get(part, {}).items():
            lines.append(f'{name:24}{"not comparable" if value is None else f"{value:.3%}"}')
    return '\n'.join(lines)


def stamp(value: int | None) -> str:
    """A stamp [ns] as ISO time (UTC) and in seconds."""
    if value is None:
        return 'none'
    try:
        time = (EPOCH + timedelta(microseconds=value // 1000)).isoformat(timespec='milliseconds')
    except OverflowError:
        time = 'beyond all calendars'
    return f'{time.replace("+00:00", "Z")} ({seconds(value)} s)'


def seconds(value: int) -> str:
    """Nanoseconds as seconds, exactly."""
    whole, part = divmod(abs(value), NANOSECONDS)
    return f'{"-" if value < 0 else ""}{whole}.{part:09d}'


def _read(path: str) -> Snapshot:
    """A snapshot whose metadata and counters can be used. Raises MemoryFileError."""
    snapshot = Snapshot.read(path)
    read_numbers(snapshot)
    tokens = snapshot.tensors.get('tokens')
    if tokens is None or not tokens.numel() or tokens.is_floating_point():
        raise MemoryFileError(f'{snapshot.source}: no counter of tokens')
    for name, tensor in snapshot.tensors.items():
        least = 2 if name.endswith('.keys') else 1
        if tensor.dim() < least:
            found = f'{name} has {tensor.dim()} dimensions, expected {least} at least'
            raise MemoryFileError(f'{snapshot.source}: {found}')
    return snapshot


def _kind_of(name: str) -> str:
    """`layers.3.keys` is of the kind `keys`."""
    return name.rpartition('.')[2] if name.startswith('layers.') else COUNTERS


def _kinds(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each kind, by layer; counters last."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name in sorted(tensors, key=_place):
        kinds.setdefault(_kind_of(name), {})[name] = tensors[name]
    if COUNTERS in kinds:
        kinds[COUNTERS] = kinds.pop(COUNTERS)
    return kinds


def _place(name: str) -> tuple[int, str]:
    found = re.match(r'layers\.(\d+)\.', name)
    return (int(found[1]) if found else -1, name)


def _kind(parts: dict[str, Tensor]) -> Kind:
    tensors = list(parts.values())
    floating = tensors[0].is_floating_point()
    wrong = sum(int((~torch.isfinite(tensor)).sum()) for tensor in tensors) if floating else 0
    return Kind(
        len(tensors),
        list(tensors[0].shape),
        str(tensors[0].dtype).removeprefix('torch.'),
        sum(tensor.nbytes for tensor in tensors),
        _finite(_norm(tensors)) if floating else None,
        wrong,
    )


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _relative(a: list[Tensor], b: list[Tensor]) -> float | None:
    """Norm of the difference over the larger norm; 0 where every bit is the same."""
    if any(_described(x) != _described(y) for x, y in zip(a, b, strict=True)):
        return None
    if all(_same(x, y) for x, y in zip(a, b, strict=True)):
        return 0.0
    difference = _norm([x.double() - y.double() for x, y in zip(a, b, strict=True)])
    return _finite(difference / (max(_norm(a), _norm(b)) or 1.0))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether type, shape and every bit are the same, also of what is not a number."""
    if _described(a) != _described(b):
        return False
    return torch.equal(*(x.contiguous().flatten().view(torch.uint8) for x in (a, b)))


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return 'missing'
    return f'{str(tensor.dtype).removeprefix("torch.")} {list(tensor.shape)}'


def _worded(name: str, value: str | None) -> str:
    if value is None:
        return 'none'
    if name.endswith('_stamp'):
        return stamp(int(value))
    return f'{seconds(int(value))} s' if name == 'elapsed' else value


def _listed(values: list[int]) -> str:
    return ', '.join(map(str, values))
