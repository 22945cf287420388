"""The weights as the network uses them: projections that read the same input are one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType

import torch
from torch import Tensor

from .config import DELTA, ModelConfig
from .kernels import plain


@dataclass
class Fp8:
    """A matrix in 8 bits, float8_e4m3fn [N, K]; row n times `scale` [N] is what it stands for.

    `wide` is the matrix itself, where products with many tokens gain nothing from 8 bits. Also
    inputs [.., K], whose rows have a `scale` each.
    """

    values: Tensor
    scale: Tensor
    wide: Tensor | None = None


@dataclass
class Mlp:
    """SwiGLU: `gate_up` [2 I, D] holds the gate's rows, then the up rows; `down` [D, I].

    `shift` [D] is still to be added to what the norm before it reads; `down` adds it for good.
    Where `down` is in 8 bits, the inner values are multiplied by `inner_scale` [I], which its
    columns make up for.
    """

    gate_up: Tensor
    down: Tensor
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    shift: Tensor | None = None
    inner_scale: Tensor | None = None


@dataclass
class Attention:
    """`qkv` [(query heads + 2 key/value heads) * head_dim, D], rows q, k, v; `out` [D, ...]."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor | None = None


@dataclass
class GatedDeltaNet:
    """`proj` has the rows of q, k, v, g, a, b (ModelConfig.linear_splits); `conv` [q+k+v, width].

    `a_log` and `dt_bias` [heads] stay float32: they set decays close to 1.
    """

    proj: Tensor
    conv: Tensor
    a_log: Tensor
    dt_bias: Tensor
    norm: Tensor
    out: Tensor


@dataclass
class Block:
    """One residual block: norm, mixer, norm, SwiGLU."""

    norm1: Tensor
    mixer: Attention | GatedDeltaNet
    norm2: Tensor
    mlp: Mlp


@dataclass
class Vision:
    """The vision tower; `patch` [hidden, patch values]: the patch convolution as a linear map."""

    patch: Tensor
    blocks: list[Block]
    merger_norm: Tensor
    merger_in: Tensor
    merger_in_bias: Tensor
    merger_out: Tensor
    merger_out_bias: Tensor


@dataclass
class Weights:
    """All weights of one network; `head` is `embed` itself when the two are tied.

    `fingerprint` tells checkpoints apart, whatever the dtype they are loaded in; `kernels` are the
    operators they are used with.
    """

    config: ModelConfig
    vision: Vision
    embed: Tensor
    layers: list[Block]
    norm: Tensor
    head: Tensor
    fingerprint: str = ''
    kernels: ModuleType = plain

    def tensors(self) -> Iterator[Tensor]:
        """Every weight once."""
        seen = set()
        for tensor in _tensors_in((self.vision, self.embed, self.layers, self.norm, self.head)):
            if tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                yield tensor

    @property
    def device(self) -> torch.device:
        return self.embed.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.dtype


def _tensors_in(part: object) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _tensors_in(item)
    elif is_dataclass(part):
        yield from _tensors_in([getattr(part, field.name) for field in fields(part)])


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a checkpoint, in the published spelling."""
    c, v = config, config.vision
    d = c.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        'visual.patch_embed.proj.weight': (
            v.hidden_size,
            v.in_channels,
            v.temporal_patch_size,
            v.patch_size,
            v.patch_size,
        ),
        'visual.merger.ln_q.weight': (v.hidden_size,),
        'model.embed_tokens.weight': (c.vocab_size, d),
        'model.norm.weight': (d,),
    }

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        shapes[f'{name}.weight'] = (rows, columns)
        if bias:
            shapes[f'{name}.bias'] = (rows,)

    def swiglu(name: str, width: int, inner: int, bias: bool) -> None:
        linear(f'{name}.gate_proj', inner, width, bias)
        linear(f'{name}.up_proj', inner, width, bias)
        linear(f'{name}.down_proj', width, inner, bias)

    for i in range(v.depth):
        block = f'visual.blocks.{i}'
        shapes[f'{block}.norm1.weight'] = shapes[f'{block}.norm2.weight'] = (v.hidden_size,)
        linear(f'{block}.attn.qkv', 3 * v.hidden_size, v.hidden_size, True)
        linear(f'{block}.attn.proj', v.hidden_size, v.hidden_size, True)
        swiglu(f'{block}.mlp', v.hidden_size, v.intermediate_size, True)
    merged = v.hidden_size * v.spatial_merge_size**2
    linear('visual.merger.mlp.0', merged, merged, True)
    linear('visual.merger.mlp.2', v.out_hidden_size, merged, True)

    for i, kind in enumerate(c.layer_types):
        layer = f'model.layers.{i}'
        shapes[f'{layer}.input_layernorm.weight'] = (d,)
        shapes[f'{layer}.post_attention_layernorm.weight'] = (d,)
        swiglu(f'{layer}.mlp', d, c.intermediate_size, False)
        mixer = f'{layer}.self_attn'
        if kind == DELTA:
            for name, rows in zip('qkvgab', c.linear_splits, strict=True):
                linear(f'{mixer}.{name}_proj', rows, d, False)
                if name in 'qkv':
                    shapes[f'{mixer}.{name}_conv1d.weight'] = (rows, 1, c.conv_size)
            shapes[f'{mixer}.A_log'] = shapes[f'{mixer}.dt_bias'] = (c.num_linear_heads,)
            shapes[f'{mixer}.o_norm.weight'] = (c.linear_value_dim,)
            linear(f'{mixer}.o_proj', d, c.num_linear_heads * c.linear_value_dim, False)
        else:
            linear(f'{mixer}.q_proj', c.num_attention_heads * c.head_dim, d, True)
            linear(f'{mixer}.k_proj', c.num_key_value_heads * c.head_dim, d, True)
            linear(f'{mixer}.v_proj', c.num_key_value_heads * c.head_dim, d, True)
            linear(f'{mixer}.o_proj', d, c.num_attention_heads * c.head_dim, False)
    if not c.tie_word_embeddings:
        shapes['lm_head.weight'] = (c.vocab_size, d)
    return shapes


def build(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """Arrange tensors named as in `tensor_shapes`. Differentiable: only views and cats."""

    def get(name: str) -> Tensor:
        return tensors[name]

    def swiglu(name: str, bias: bool) -> Mlp:
        def gate_up(kind: str) -> Tensor:
            return torch.cat([get(f'{name}.{part}_proj.{kind}') for part in ('gate', 'up')])

        down = f'{name}.down_proj'
        if not bias:
            return Mlp(gate_up('weight'), get(f'{down}.weight'))
        return Mlp(gate_up('weight'), get(f'{down}.weight'), gate_up('bias'), get(f'{down}.bias'))

    def vision_block(name: str) -> Block:
        attn = f'{name}.attn'
        mixer = Attention(
            *(get(f'{attn}.{part}') for part in ('qkv.weight', 'qkv.bias')),
            *(get(f'{attn}.{part}') for part in ('proj.weight', 'proj.bias')),
        )
        norms = get(f'{name}.norm1.weight'), get(f'{name}.norm2.weight')
        return Block(norms[0], mixer, norms[1], swiglu(f'{name}.mlp', True))

    def decoder_mixer(name: str, kind: str) -> Attention | GatedDeltaNet:
        def rows(parts: str, what: str) -> Tensor:
            return torch.cat([get(f'{name}.{part}_{what}') for part in parts])

        if kind != DELTA:
            return Attention(
                rows('qkv', 'proj.weight'), rows('qkv', 'proj.bias'), get(f'{name}.o_proj.weight')
            )
        return GatedDeltaNet(
            proj=rows('qkvgab', 'proj.weight'),
            conv=rows('qkv', 'conv1d.weight').squeeze(1),
            a_log=get(f'{name}.A_log').float(),
            dt_bias=get(f'{name}.dt_bias').float(),
            norm=get(f'{name}.o_norm.weight'),
            out=get(f'{name}.o_proj.weight'),
        )

    def decoder_block(i: int, kind: str) -> Block:
        name = f'model.layers.{i}'
        return Block(
            get(f'{name}.input_layernorm.weight'),
            decoder_mixer(f'{name}.self_attn', kind),
            get(f'{name}.post_attention_layernorm.weight'),
            swiglu(f'{name}.mlp', False),
        )

    embed = get('model.embed_tokens.weight')
    merger = 'visual.merger.mlp'
    return Weights(
        config=config,
        vision=Vision(
            get('visual.patch_embed.proj.weight').flatten(1),
            [vision_block(f'visual.blocks.{i}') for i in range(config.vision.depth)],
            get('visual.merger.ln_q.weight'),
            *(get(f'{merger}.{part}') for part in ('0.weight', '0.bias', '2.weight', '2.bias')),
        ),
        embed=embed,
        layers=[decoder_block(i, kind) for i, kind in enumerate(config.layer_types)],
        norm=get('model.norm.weight'),
        head=embed if config.tie_word_embeddings else get('lm_head.weight'),
    )
