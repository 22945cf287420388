"""Checkpoints of small networks: sizes, tokenizer, first weights, files in Qwen's layout."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from infinitevl_ros.cli.random_checkpoint import SPECIAL_TOKENS, initial
from infinitevl_ros.model.config import DELTA, SLIDING, ModelConfig
from infinitevl_ros.model.weights import tensor_shapes
from infinitevl_ros.world.questions import SIDES, THINGS, with_article
from infinitevl_ros.world.scene import COLOURS, KINDS, ROOMS
from infinitevl_ros.world.wordings import WORDINGS

MOST_TOKENS = 1024
# Smallest and largest decay rate a head starts with, per token: half a life of 40 tokens to one of
# a hundred thousand, so that some heads remember from the first step on.
RATES = (1e-5, 2e-2)


def make_tokenizer() -> Tokenizer:
    """Bytes joined to the words of the rendered world; numbers are spelled digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS - len(SPECIAL_TOKENS),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _corpus() -> Iterator[str]:
    """Every question in every wording, and all that answers are made of."""
    for wording in itertools.chain.from_iterable(WORDINGS.values()):
        words = zip(THINGS, itertools.cycle(ROOMS), itertools.cycle(SIDES.values()), strict=False)
        for thing, room, side in words:
            kind = thing.split()[1]
            yield wording.format(
                thing=thing,
                a_thing=with_article(thing),
                other=thing,
                kind=kind,
                room=room,
                side=side,
            )
    for thing, room in itertools.product(THINGS, ROOMS):
        named = with_article(thing)
        yield f'entered the {room}, {named} and {named} in view'
        sides = ', '.join(f'{named} {side}' for side in SIDES.values())
        yield f'the {room}, number 1, {sides}'
    events = 'the light went on', 'the light went off', 'a person came into view'
    yield from (*events, 'a person went out of view', f'a {THINGS[0]} came into view') * 2
    yield from ('yes', 'no', 'nothing', *SIDES, *ROOMS, *KINDS, *COLOURS, *THINGS) * 2


def config_values(sizes: dict, tokenizer: Tokenizer, teacher_window: int | None = None) -> dict:
    """The config.json of a network of these sizes; a teacher attends in all layers."""
    ids = {name: tokenizer.token_to_id(f'<|{name}|>') for name in ('im_end', 'endoftext')}
    tokens = {
        'image': 'image_pad', 'video': 'video_pad',
        'vision_start': 'vision_start', 'vision_end': 'vision_end',
    }  # fmt: skip
    layers = sizes['num_hidden_layers']
    kinds = [SLIDING if i % 4 == 0 or teacher_window else DELTA for i in range(layers)]
    window = {'sliding_window': teacher_window} if teacher_window else {}
    return {
        'model_type': 'infinite_vl',
        'architectures': ['InfiniteVLQwen2_5_VLForConditionalGeneration'],
        **sizes,
        **window,
        'layer_types': kinds,
        'vocab_size': -(-tokenizer.get_vocab_size() // 64) * 64,
        'tie_word_embeddings': True,
        'bos_token_id': ids['endoftext'],
        'eos_token_id': ids['im_end'],
        'torch_dtype': 'bfloat16',
        **{f'{name}_token_id': tokenizer.token_to_id(f'<|{t}|>') for name, t in tokens.items()},
    }


def initial_tensors(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Random weights, float32, named as in a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        tensor = initial(name, shape, generator)
        if name.endswith('.A_log'):
            tensor.zero_()
        elif name.endswith('.dt_bias'):
            low, high = (torch.tensor(rate).log().item() for rate in RATES)
            tensor.uniform_(low, high, generator=generator).exp_()
            tensor = tensor.expm1().log()  # the inverse of softplus
        elif name.endswith('embed_tokens.weight'):
            tensor.mul_(shape[1] ** 0.5 * 0.05)
        tensors[name] = tensor
    return tensors
