"""Networks of a published size with random weights, made where they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..model.config import ModelConfig
from ..model.weights import Weights, build, tensor_shapes
from .random_checkpoint import initial

SHAPES = {
    '4b': {
        'hidden_size': 2048,
        'intermediate_size': 11008,
        'num_hidden_layers': 36,
        'num_attention_heads': 16,
        'num_key_value_heads': 2,
        'head_dim': 128,
        'sliding_window': 8192,
        'linear_head_dim': 128,
        'num_linear_heads': 16,
        'num_linear_key_value_heads': 16,
        'vocab_size': 151936,
        'rope_scaling': {'type': 'default', 'mrope_section': [16, 24, 24]},
        'vision_config': {
            'depth': 32,
            'hidden_size': 1280,
            'num_heads': 16,
            'intermediate_size': 3420,
            'out_hidden_size': 2048,
            'fullatt_block_indexes': [7, 15, 23, 31],
        },
    }
}
# Four blocks of the same widths behind a short window: quick to run over many windows.
SHAPES['4b-16-layers'] = {**SHAPES['4b'], 'num_hidden_layers': 16, 'sliding_window': 2048}
# What a residual block ends with.
ENDS_OF_BRANCHES = ('o_proj.weight', 'attn.proj.weight', 'down_proj.weight')


def random_weights(
    shape: str, folder: Path, device: str, dtype: torch.dtype, seed: int = 0
) -> Weights:
    """A network of SHAPES[shape] for the tokens of the checkpoint in `folder`.

    The same seed gives the same weights on the same kind of device.
    """
    values = json.loads((folder / 'config.json').read_text())
    config = ModelConfig.from_dict({**values, **SHAPES[shape], 'layer_types': None}, shape)
    weights = build(config, RandomTensors(config, torch.device(device), dtype, seed))
    weights.fingerprint = f'{shape}-{seed}'
    return weights


class RandomTensors(Mapping):
    """Tensors by name, each made when it is asked for: no two copies of all weights at a time."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype, seed: int):
        self._shapes, self._dtype = tensor_shapes(config), dtype
        self._generator = torch.Generator(device).manual_seed(seed)
        self._depth = config.num_hidden_layers, config.vision.depth

    def __getitem__(self, name: str) -> Tensor:
        value = initial(name, self._shapes[name], self._generator)
        if name.endswith(ENDS_OF_BRANCHES):
            # As deep networks are initialised: all branches together add up to about one.
            value *= (2 * self._depth[name.startswith('visual.')]) ** -0.5
        return value if name.endswith(('.A_log', '.dt_bias')) else value.to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
