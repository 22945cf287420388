"""The sizes of an InfiniteVL network, read from a checkpoint's config.json."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, is_dataclass
from typing import Any, get_type_hints

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
        text = _section(values, 'text_config', source)
        values = {**text, **{name: v for name, v in values.items() if v is not None}}
        if not values.get('vision_config'):
            raise CheckpointError(
                f'{source}: no "vision_config": not a vision-language checkpoint'
            )
        vision = _section(values, 'vision_config', source)
        rope = _section(values, 'rope_scaling', source) or _section(
            values, 'rope_parameters', source
        )
        _refuse_variants(values, vision, rope, source)
        eos = values.get('eos_token_id', [])
        count = values.get('num_hidden_layers', 0)
        default_types = [SLIDING if i % 4 == 0 else DELTA for i in range(_whole(count) or 0)]
        values = {
            **values,
            'layer_types': values.get('layer_types') or default_types,
            'mrope_section': rope.get('mrope_section', []),
            'eos_token_ids': eos if isinstance(eos, list) else [eos],
            'rope_theta': rope.get('rope_theta', values.get('rope_theta', cls.rope_theta)),
        }
        fields = _pick(cls, values, source)
        fields['vision'] = VisionConfig(**_pick(VisionConfig, vision, source))
        missing = [
            name
            for name, field in cls.__dataclass_fields__.items()
            if field.default is MISSING and not fields.get(name) and fields.get(name) != 0
        ]
        if missing:
            spelled = ', '.join(missing).replace('eos_token_ids', 'eos_token_id')
            raise CheckpointError(f'{source}: no value for {spelled}')
        config = cls(**fields)
        config._check(source)
        return config

    def _check(self, source: str) -> None:
        def expect(condition: bool, message: str) -> None:
            if not condition:
                raise CheckpointError(f'{source}: {message}')

        for part in (self, self.vision):
            for name, value in vars(part).items():
                is_size = isinstance(value, int) and not name.endswith('_id')
                expect(not is_size or value > 0 or name == 'tie_word_embeddings', f'{name} is 0')
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
        for name in ('image_token_id', 'vision_start_token_id', 'vision_end_token_id'):
            token = getattr(self, name)
            expect(0 <= token < self.vocab_size, f'{name} {token} is not in the vocabulary')
        for token in self.eos_token_ids:
            expect(0 <= token < self.vocab_size, f'eos_token_id {token} is not in the vocabulary')


def _refuse_variants(
    values: dict[str, Any], vision: dict[str, Any], rope: dict[str, Any], source: str
) -> None:
    """Settings that would need another computation than the one in this package."""
    kinds = {rope[name] for name in ('type', 'rope_type') if rope.get(name)}
    activations = {v['hidden_act'] for v in (values, vision) if v.get('hidden_act')}
    found = [f'rope type {kind}' for kind in sorted(map(str, kinds - {'default', 'mrope'}))]
    found += [f'hidden_act {name}' for name in sorted(map(str, activations - {'silu'}))]
    found += [
        f'{name} false' for name in ('use_gate', 'use_short_conv') if values.get(name) is False
    ]
    if found:
        raise CheckpointError(f'{source}: {", ".join(found)}: not what this network computes')


def _section(values: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    section = values.get(name) or {}
    if not isinstance(section, dict):
        raise CheckpointError(f'{source}: {name} is {section!r}, expected an object')
    return section


def _whole(value: Any) -> int | None:
    """A whole number, also one written as 2.0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)


def _pick(kind: type, values: dict[str, Any], source: str) -> dict[str, Any]:
    """The values that the dataclass `kind` has fields for, checked against their types."""
    picked = {}
    for name, expected in get_type_hints(kind).items():
        value = values.get(name)
        if value is None or is_dataclass(expected):
            continue
        convert, said = CONVERSIONS[expected]
        try:
            picked[name] = convert(value)
        except (TypeError, ValueError):
            raise CheckpointError(f'{source}: {name} is {value!r}, expected {said}') from None
    return picked


def _size(value: Any) -> int:
    whole = _whole(value)
    if whole is None or whole < 0:
        raise ValueError
    return whole


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(_size(item) for item in value)


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


# Type of a field: how to read it, and what is expected in words.
CONVERSIONS = {
    int: (_size, 'a whole number'),
    float: (_number, 'a number above 0'),
    bool: (_truth, 'true or false'),
    tuple[int, ...]: (_sizes, 'a list of whole numbers'),
    tuple[int, int, int]: (_sizes, 'a list of three whole numbers'),
    tuple[str, ...]: (_words, 'a list of names'),
}
