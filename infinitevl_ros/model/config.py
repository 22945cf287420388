"""The sizes of an InfiniteVL network, read from a checkpoint's config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SLIDING, DELTA, FULL = 'sliding_attention', 'linear_attention', 'full_attention'
LAYER_TYPES = (SLIDING, DELTA, FULL)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what was found and what was expected."""


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower (Qwen2.5-VL's)."""

    depth: int = 32
    hidden_size: int = 1280
    num_heads: int = 16
    intermediate_size: int = 3420
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    out_hidden_size: int = 2048
    tokens_per_second: int = 2

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch (channel, time, y, x)."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the whole network. Defaults are those that published config files leave out."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    sliding_window: int
    mrope_section: tuple[int, int, int]
    layer_types: tuple[str, ...]
    vision: VisionConfig
    image_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    eos_token_ids: tuple[int, ...]
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    tie_word_embeddings: bool = True
    num_linear_heads: int = 16
    num_linear_key_value_heads: int = 16
    linear_head_dim: int = 128
    expand_v: int = 2
    conv_size: int = 4
    norm_eps: float = 1e-5

    @property
    def linear_value_dim(self) -> int:
        """Value width of one Gated DeltaNet head."""
        return self.linear_head_dim * self.expand_v

    @property
    def linear_splits(self) -> tuple[int, ...]:
        """Widths of the Gated DeltaNet projections in their fused order: q, k, v, g, a, b."""
        qk, v = self.linear_head_dim, self.linear_value_dim
        heads = self.num_linear_heads
        return (heads * qk, heads * qk, heads * v, heads * v, heads, heads)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str) -> ModelConfig:
        """Build from the contents of a config.json.

        Text sizes stand at the top level (published) or under `text_config` (newer transformers).
        Raises CheckpointError, naming `source` and the field.
        """
        values = {**values.get('text_config', {}), **values}
        if 'vision_config' not in values:
            raise CheckpointError(
                f'{source}: no "vision_config": not a vision-language checkpoint'
            )
        fields = _pick(cls, values)
        fields['vision'] = VisionConfig(**_pick(VisionConfig, values['vision_config']))
        rope = values.get('rope_scaling') or values.get('rope_parameters') or {}
        fields['mrope_section'] = tuple(rope.get('mrope_section', ()))
        if 'rope_theta' in rope:
            fields['rope_theta'] = rope['rope_theta']
        if not fields.get('layer_types'):
            count = int(values.get('num_hidden_layers', 0))
            fields['layer_types'] = tuple(SLIDING if i % 4 == 0 else DELTA for i in range(count))
        eos = values.get('eos_token_id')
        if eos is not None:
            fields['eos_token_ids'] = tuple(eos) if isinstance(eos, list) else (eos,)
        try:
            config = cls(**fields)
        except TypeError as error:
            raise CheckpointError(f'{source}: {error}') from None
        config._check(source)
        return config

    def _check(self, source: str) -> None:
        def expect(condition: bool, message: str) -> None:
            if not condition:
                raise CheckpointError(f'{source}: {message}')

        unknown = sorted(set(self.layer_types) - set(LAYER_TYPES))
        expect(not unknown, f'unknown layer types {unknown}; known are {list(LAYER_TYPES)}')
        expect(
            len(self.layer_types) == self.num_hidden_layers,
            f'{len(self.layer_types)} layer_types for {self.num_hidden_layers} layers',
        )
        expect(
            2 * sum(self.mrope_section) == self.head_dim and len(self.mrope_section) == 3,
            f'mrope_section {list(self.mrope_section)} must be three numbers that sum to half of '
            f'head_dim {self.head_dim}',
        )
        expect(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f'{self.num_attention_heads} attention heads cannot share '
            f'{self.num_key_value_heads} key/value heads evenly',
        )
        expect(
            self.num_linear_heads == self.num_linear_key_value_heads,
            'Gated DeltaNet layers with grouped heads (num_linear_heads != '
            'num_linear_key_value_heads) are not supported',
        )
        expect(
            self.vision.out_hidden_size == self.hidden_size,
            f'the vision tower gives {self.vision.out_hidden_size} values a token, the decoder '
            f'takes {self.hidden_size}',
        )
        expect(self.sliding_window > 0, f'sliding_window is {self.sliding_window}')


def _pick(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values that `kind` has fields for, lists as tuples."""
    names = kind.__dataclass_fields__
    picked = {name: value for name, value in values.items() if name in names and value is not None}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in picked.items()}
