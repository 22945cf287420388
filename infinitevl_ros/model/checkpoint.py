"""Reading a checkpoint folder: config.json and safetensors, every tensor accounted for."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .config import CheckpointError, ModelConfig
from .weights import Weights, build, tensor_shapes

INDEX = 'model.safetensors.index.json'
# Decays close to 1, which 16 bits would round to 1.
FLOAT32 = ('.A_log', '.dt_bias')
READABLE = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
# As safetensors spells them in a file's head.
SPELLED = dict(zip(('BF16', 'F16', 'F32', 'F64'), READABLE, strict=True))
PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt')
# Newer transformers spell the two halves differently.
SPELLINGS = (('model.visual.', 'visual.'), ('model.language_model.', 'model.'))

# Takes a line about what has been done; what it raises ends the work.
Progress = Callable[[str], None]


def quietly(_line: str) -> None:
    """Tell nobody."""


def load_checkpoint(
    path: str | Path,
    device: str | torch.device = 'cpu',
    dtype: torch.dtype = torch.float32,
    progress: Progress = quietly,
) -> Weights:
    """Load `path`, a folder with config.json and one or more safetensors files.

    Tensors of 16, 32 or 64 bits on disk become `dtype` on `device`. `progress` gets a line for
    each file read. Raises CheckpointError with the file, the tensor, what was expected and what
    was found.
    """
    folder = Path(path)
    config = load_config(folder)
    expected = tensor_shapes(config)
    tensors: dict[str, Tensor] = {}
    digests: dict[str, bytes] = {}
    files = _weight_files(folder)
    for number, file in enumerate(files, start=1):
        began = time.monotonic()
        for name, tensor in _read(file):
            name = _published_name(name)
            if _is_redundant(name, config):
                continue
            _check(file, name, tensor, expected, tensors)
            wanted = torch.float32 if name.endswith(FLOAT32) else dtype
            tensors[name] = tensor.to(device=device, dtype=wanted)
            digests[name] = _digest(tensor)
        progress(
            f'{file.name} ({number} of {len(files)}): {file.stat().st_size / 1e9:.2f} GB '
            f'in {time.monotonic() - began:.1f} s'
        )
    _check_complete(folder, expected, tensors)
    weights = build(config, tensors)
    digest = hashlib.sha256(repr(config).encode())
    for name in sorted(digests):
        digest.update(name.encode() + digests[name])
    weights.fingerprint = digest.hexdigest()[:16]
    return weights


def check_headers(folder: Path, config: ModelConfig) -> tuple[dict[str, tuple[int, ...]], int]:
    """The shapes of all tensors, and the bytes of their files, by the heads of the files alone.

    Raises CheckpointError as loading them would, as far as that can be told without the data.
    """
    expected = tensor_shapes(config)
    found: dict[str, Any] = {}
    files = _weight_files(folder)
    for file in files:
        try:
            with safe_open(file, framework='pt') as tensors:
                for key in tensors.keys():  # noqa: SIM118 - not a dict
                    name = _published_name(key)
                    if _is_redundant(name, config):
                        continue
                    part = tensors.get_slice(key)
                    dtype = SPELLED.get(part.get_dtype(), part.get_dtype())
                    found_here = SimpleNamespace(shape=part.get_shape(), dtype=dtype)
                    _check(file, name, found_here, expected, found)
                    found[name] = found_here
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f'{file}: not a readable safetensors file: {error}') from None
    _check_complete(folder, expected, found)
    return expected, sum(file.stat().st_size for file in files)


def load_config(folder: Path) -> ModelConfig:
    """The sizes in `folder`/config.json; CheckpointError when there is none or it is broken."""
    if not folder.is_dir():
        raise CheckpointError(f'{folder}: no such checkpoint folder')
    values = read_json(folder / 'config.json')
    generation = folder / 'generation_config.json'
    if generation.is_file():
        # It may name further tokens that end an answer.
        ends = [values.get('eos_token_id'), read_json(generation).get('eos_token_id')]
        ends = [end for part in ends for end in (part if isinstance(part, list) else [part])]
        values['eos_token_id'] = list(dict.fromkeys(end for end in ends if end is not None))
    return ModelConfig.from_dict(values, str(folder / 'config.json'))


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; CheckpointError when it is missing or is something else."""
    try:
        value = json.loads(file.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise CheckpointError(f'{file}: missing; a checkpoint folder needs it') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{file}: not readable as JSON: {error}') from None
    if not isinstance(value, dict):
        raise CheckpointError(f'{file}: expected a JSON object, found {type(value).__name__}')
    return value


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        weight_map = read_json(index).get('weight_map')
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f'{index}: expected a "weight_map" from tensor to file')
        if not all(isinstance(name, str) for name in weight_map.values()):
            raise CheckpointError(f'{index}: expected the name of a file for each tensor')
        files = [folder / name for name in sorted(set(weight_map.values()))]
        for file in files:
            if file.parent != folder or not file.is_file():
                raise CheckpointError(f'{index}: names {file.name}, which is not in the folder')
        return files
    # Other files beside the model (adapters, test vectors) are not part of it.
    for pattern in ('model.safetensors', 'model-*-of-*.safetensors', '*.safetensors'):
        if files := sorted(folder.glob(pattern)):
            return files
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f'{folder / pickles[0]}: a pickle, which can run code when it is read and is refused; '
            'expected *.safetensors'
        )
    raise CheckpointError(f'{folder}: no *.safetensors file in the folder')


def _read(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, framework='pt') as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict, it has no other iterator
                yield name, tensors.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{file}: not a readable safetensors file: {error}') from None


def _published_name(name: str) -> str:
    for other, published in SPELLINGS:
        if name.startswith(other):
            return published + name[len(other) :]
    return name


def _digest(tensor: Tensor) -> bytes:
    """A checksum of a tensor as it is on disk."""
    values = tensor.contiguous().flatten().view(torch.uint8)
    return zlib.crc32(values.numpy()).to_bytes(4, 'little')


def _check_complete(
    folder: Path, expected: dict[str, tuple[int, ...]], found: dict[str, Any]
) -> None:
    missing = sorted(expected.keys() - found.keys())
    if missing:
        first = missing[0]
        raise CheckpointError(
            f'{folder}: {len(missing)} tensors are missing, the first is {first} '
            f'{list(expected[first])}'
        )


def _is_redundant(name: str, config: ModelConfig) -> bool:
    """Tensors that some writers save although they follow from others."""
    return name.endswith('.inv_freq') or (name == 'lm_head.weight' and config.tie_word_embeddings)


def _check(
    file: Path,
    name: str,
    tensor: Tensor,
    expected: dict[str, tuple[int, ...]],
    seen: dict[str, Tensor],
) -> None:
    if name not in expected:
        raise CheckpointError(f'{file}: tensor {name} has no place in the network of config.json')
    if name in seen:
        raise CheckpointError(f'{file}: tensor {name} occurs a second time')
    if tuple(tensor.shape) != expected[name]:
        raise CheckpointError(
            f'{file}: tensor {name} has shape {list(tensor.shape)}, expected '
            f'{list(expected[name])}'
        )
    if tensor.dtype not in READABLE:
        raise CheckpointError(
            f'{file}: tensor {name} is {tensor.dtype}, expected a floating type of 16 to 64 bits'
        )
