"""A small checkpoint with seeded random weights: the real network, saying noise."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from ..model.config import ModelConfig
from ..model.weights import tensor_shapes
from . import output

FRAME_SIDE = 112
VOCABULARY = 640
SPECIAL_TOKENS = (
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<|vision_start|>',
    '<|vision_end|>',
    '<|vision_pad|>',
    '<|image_pad|>',
    '<|video_pad|>',
)
CHAT_TEMPLATE = (
    '{% for message in messages %}'
    '<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n'
    '{% endfor %}'
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)
# Merges for a few hundred common words of the domain come from this.
WORDS = """
the robot camera sees a room with red green blue yellow white black ball box cup plant chair lamp
door number left right ahead person wall floor light on off open closed now before then kitchen
living corridor office what where which how many first last seen yes no is are was
"""


def write_random_checkpoint(folder: str | Path, seed: int = 0) -> Path:
    """Write a complete checkpoint of about a million parameters; the same seed, the same files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    config = _config(tokenizer)
    sizes = ModelConfig.from_dict(config, 'the random checkpoint')
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: initial(name, shape, generator).to(torch.bfloat16)
        for name, shape in tensor_shapes(sizes).items()
    }
    write_checkpoint(folder, config, tokenizer, tensors)
    return folder


def write_checkpoint(
    folder: Path, config: dict, tokenizer: Tokenizer, tensors: Mapping[str, Tensor]
) -> None:
    """Write all files of a small checkpoint: `config` as config.json, `tensors` as they are."""
    save_file(dict(tensors), folder / 'model.safetensors', {'format': 'pt'})
    write_prompt(folder, tokenizer)
    sizes = {'size': {'height': FRAME_SIDE, 'width': FRAME_SIDE}}
    for name, values in (('config.json', config), ('preprocessor_config.json', sizes)):
        _write_json(folder / name, values)


def write_prompt(folder: Path, tokenizer: Tokenizer) -> None:
    """Write what engine.prompt.Prompt reads: the tokenizer and the chat template."""
    tokenizer.save(str(folder / 'tokenizer.json'))
    values = {'chat_template': CHAT_TEMPLATE, 'eos_token': '<|im_end|>'}
    _write_json(folder / 'tokenizer_config.json', values)


def _write_json(file: Path, values: dict) -> None:
    file.write_text(json.dumps(values, indent=2) + '\n')


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _config(tokenizer: Tokenizer) -> dict:
    ids = {name: tokenizer.token_to_id(f'<|{name}|>') for name in ('im_end', 'endoftext')}
    vision_ids = {
        f'{name}_token_id': tokenizer.token_to_id(f'<|{token}|>')
        for name, token in (
            ('image', 'image_pad'),
            ('video', 'video_pad'),
            ('vision_start', 'vision_start'),
            ('vision_end', 'vision_end'),
        )
    }
    return {
        'model_type': 'infinite_vl',
        'architectures': ['InfiniteVLQwen2_5_VLForConditionalGeneration'],
        'hidden_size': 128,
        'intermediate_size': 256,
        'num_hidden_layers': 5,
        'num_attention_heads': 4,
        'num_key_value_heads': 2,
        'head_dim': 32,
        'rms_norm_eps': 1e-6,
        'rope_theta': 1e6,
        'rope_scaling': {'type': 'default', 'mrope_section': [4, 6, 6]},
        # 32 frames of 16 tokens.
        'sliding_window': 512,
        'num_linear_heads': 4,
        'num_linear_key_value_heads': 4,
        'linear_head_dim': 32,
        'vocab_size': VOCABULARY,
        'tie_word_embeddings': True,
        'bos_token_id': ids['endoftext'],
        'eos_token_id': ids['im_end'],
        'torch_dtype': 'bfloat16',
        **vision_ids,
        'vision_config': {
            'depth': 2,
            'hidden_size': 64,
            'num_heads': 2,
            'intermediate_size': 172,
            'patch_size': 14,
            'temporal_patch_size': 2,
            'spatial_merge_size': 2,
            'window_size': 112,
            'fullatt_block_indexes': [1],
            'out_hidden_size': 128,
            'tokens_per_second': 2,
        },
    }


def initial(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Values that keep activations near unit size; decays as Gated DeltaNet is trained from."""
    empty = torch.empty(shape, device=generator.device)
    if name.endswith('.A_log'):
        return empty.uniform_(1, 16, generator=generator).log()
    if name.endswith('.dt_bias'):
        step = empty.uniform_(math.log(1e-3), math.log(1e-1), generator=generator)
        return step.exp().expm1().log()  # the inverse of softplus
    if name.endswith('.bias'):
        return empty.zero_()
    if len(shape) == 1:
        return empty.fill_(1)
    fan_in = math.prod(shape[1:])
    return empty.normal_(generator=generator) * fan_in**-0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--force', action='store_true', help='write over a checkpoint that is there'
    )
    output.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    output.check_outputs(arguments.json)
    folder = arguments.folder
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'{folder}: is there already, expected the name of a folder')
    if (folder / 'config.json').exists() and not arguments.force:
        raise ValueError(f'{folder}: a checkpoint is there already (--force writes over it)')
    write_random_checkpoint(arguments.folder, arguments.seed)
    text = f'Wrote {folder}: random weights, its words are noise.'
    print(text, file=output.results(arguments))
    output.write_json(arguments.json, {'folder': str(folder), 'seed': arguments.seed})
    return 0
