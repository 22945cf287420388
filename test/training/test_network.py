"""The network over whole streams gives what the engine gives frame by frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infinitevl_ros.cli.random_checkpoint import write_checkpoint
from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.engine.sampling import Sampling
from infinitevl_ros.engine.steps import Geometry
from infinitevl_ros.model.config import ModelConfig
from infinitevl_ros.model.weights import build
from training import network
from training.checkpoint import config_values, initial_tensors, make_tokenizer
from training.kernels import operators

SIZES = {
    'hidden_size': 64,
    'intermediate_size': 96,
    'num_hidden_layers': 5,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 16,
    'rope_scaling': {'mrope_section': [2, 3, 3]},
    'sliding_window': 128,
    'num_linear_heads': 2,
    'num_linear_key_value_heads': 2,
    'linear_head_dim': 16,
    'vision_config': {
        'depth': 2,
        'hidden_size': 32,
        'num_heads': 2,
        'intermediate_size': 48,
        'patch_size': 14,
        'window_size': 112,
        'fullatt_block_indexes': [1],
        'out_hidden_size': 64,
    },
}
FRAMES, RATE = 24, 5  # three windows, in five seconds
QUESTIONS = {4: 'What do you see?', 12: 'Is the light on?', 24: 'Where did you see the red ball?'}


@pytest.mark.parametrize('teacher_window', [None, 1024])
def test_whole_streams_give_what_the_engine_gives_frame_by_frame(tmp_path, teacher_window):
    tokenizer = make_tokenizer()
    values = config_values(SIZES, tokenizer, teacher_window)
    config = ModelConfig.from_dict(values, 'test')
    tensors = initial_tensors(config, seed=3)
    write_checkpoint(tmp_path, values, tokenizer, tensors)
    engine = StreamingEngine.from_checkpoint(tmp_path)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (FRAMES, 112, 112, 3), np.uint8)

    memory = engine.new_memory()
    asked, expected = [], []
    for i, frame in enumerate(frames):
        engine.ingest(memory, frame, i * 1_000_000_000 // RATE)
        if i + 1 in QUESTIONS:
            tokens = engine.prompt.question(QUESTIONS[i + 1], 'header_first')
            asked.append(tokens)
            answer = engine.ask(memory, QUESTIONS[i + 1], Sampling(max_tokens=16))
            list(answer)
            expected.append(answer.token_ids)

    weights = replace(build(config, tensors), kernels=operators(compiled=False))
    ids = [tokens + answer for tokens, answer in zip(asked, expected, strict=True)]
    length = -(-max(map(len, ids)) // 64) * 64
    with torch.no_grad():
        streams = network.Streams(
            header=torch.tensor(engine.prompt.header('header_first')),
            images=network.image_tokens(weights, torch.from_numpy(frames))[None],
            times=torch.arange(FRAMES)[None] // RATE * 2,
            cells=Geometry.of(weights, (112, 112)).cells,
            starts=torch.tensor([list(QUESTIONS)]),
            ids=torch.tensor([line + [0] * (length - len(line)) for line in ids])[None],
        )
        hidden = network.run(weights, *network.start(weights, streams))
    scores = hidden @ weights.embed.T
    for line, tokens, answer in zip(scores, asked, expected, strict=True):
        found = line[len(tokens) - 1 : len(tokens) - 1 + len(answer)].argmax(-1)
        assert found.tolist() == answer
    branch = engine.ask(memory, QUESTIONS[24])
    branch._unread = []
    outputs = engine._runner._append(branch._branch.state, asked[-1], False)
    torch.testing.assert_close(hidden[-1, len(asked[-1]) - 1], outputs[0], rtol=0, atol=2e-4)
