"""CUDA graphs against the same steps uncaptured, and against the CPU, over several windows."""

import gc
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from infinitevl_ros.cli.random_weights import random_weights
from infinitevl_ros.engine import Frame, Options, Sampling, StreamingEngine
from infinitevl_ros.engine.prompt import Prompt
from infinitevl_ros.model import decoder
from infinitevl_ros.model.checkpoint import load_checkpoint
from infinitevl_ros.model.config import VisionConfig

SECOND = 1_000_000_000
# Relative norm of a difference: of every tensor of a memory, and of the final hidden states.
BOUNDS = {torch.float32: 2e-3, torch.bfloat16: 2e-2}
QUESTION = 'where did you see the red cup last?'


def frame(seed, height=480, width=640):
    """A picture that moves a little from frame to frame, as a camera's does."""
    random = np.random.default_rng(seed // 8)
    picture = random.integers(0, 256, (height + 16, width + 16, 3), np.uint8)
    shift = seed % 8
    return np.ascontiguousarray(picture[shift : shift + height, 2 * shift : 2 * shift + width])


def feed(engine, memory, frames):
    for i in frames:
        engine.ingest(memory, frame(i), i * SECOND // 10)


def error(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def same(found, wanted, bound):
    """Two memories hold the same to within rounding, and count the same."""
    for name, tensor in wanted.state.tensors.items():
        other = found.state.tensors[name].to(tensor.device)
        if tensor.is_floating_point():
            assert error(other, tensor) < bound, (name, error(other, tensor))
        else:
            assert torch.equal(other, tensor), name


def identical(found, wanted):
    return all(
        torch.equal(tensor, wanted.state.tensors[name])
        for name, tensor in found.state.tensors.items()
    )


def hidden(engine, memory):
    """Final hidden states of a question on a copy of the memory, by plain calls: [T, D]."""
    weights = engine.weights
    ids = torch.tensor([engine.prompt.question(QUESTION, 'header_first')], device=weights.device)
    state = engine._free[0].state
    state.copy_(memory.state)
    steps = torch.arange(1, ids.shape[1] + 1, device=weights.device)
    positions = (state['largest'] + steps).expand(1, 3, -1)
    with torch.no_grad():
        return decoder.decode(weights, decoder.embed(weights, ids), positions, state)[0]


@pytest.fixture(scope='module')
def mid(checkpoint):
    """Four blocks of the 4B widths, a window of 2048 tokens (8 frames), bfloat16."""
    weights = random_weights('4b-16-layers', checkpoint, 'cuda', torch.bfloat16)
    # The vision tower of the full depth would only repeat itself.
    tower = replace(weights.vision, blocks=weights.vision.blocks[:8])
    vision = replace(weights.config.vision, depth=8)
    assert isinstance(vision, VisionConfig)
    config = replace(weights.config, vision=vision, eos_token_ids=(-1,))
    # Text on the scale of image tokens: the first norm would magnify what is far smaller.
    embed = weights.embed * config.hidden_size**0.5
    weights = replace(weights, config=config, vision=tower, embed=embed, head=embed)
    return weights, Prompt(checkpoint, config)


def small(golden, checkpoint, tmp_path_factory):
    """The golden network, in float32, with a tokenizer that has its few tokens."""
    weights = load_checkpoint(golden / 'tiny', 'cuda')
    folder = tmp_path_factory.mktemp('golden')
    spec = json.loads((checkpoint / 'tokenizer.json').read_text())
    config = weights.config
    names = {
        '<|vision_start|>': config.vision_start_token_id,
        '<|image_pad|>': config.image_token_id,
        '<|vision_end|>': config.vision_end_token_id,
        '<|im_end|>': config.eos_token_ids[0],
    }
    kept = {text: i for text, i in spec['model']['vocab'].items() if i < 590}
    spec['model'] |= {'vocab': kept, 'merges': []}
    added = [token for token in spec['added_tokens'] if token['content'] in names]
    for token in added:
        token['id'] = names[token['content']]
    other = {'id': 591, 'content': '<|im_start|>'}
    spec['added_tokens'] = sorted([*added, {**added[0], **other}], key=lambda t: t['id'])
    spec['model']['vocab'] |= {t['content']: t['id'] for t in spec['added_tokens']}
    (folder / 'tokenizer.json').write_text(json.dumps(spec))
    (folder / 'tokenizer_config.json').write_bytes(
        (checkpoint / 'tokenizer_config.json').read_bytes()
    )
    config = replace(config, eos_token_ids=(-1,))
    return replace(weights, config=config), Prompt(folder, config)


@pytest.fixture(scope='module', params=['golden, float32', 'mid, bfloat16'])
def network(request, golden, checkpoint, tmp_path_factory):
    """Weights, their prompt, the frame size, and frames that fill the window three times."""
    if request.param.startswith('golden'):
        # 36 tokens a frame, 96 in the window.
        weights, prompt = small(golden, checkpoint, tmp_path_factory)
        return weights, prompt, (168, 168), 12
    weights, prompt = request.getfixturevalue('mid')
    return weights, prompt, (448, 448), 30


def engine(network, cameras=4, **options):
    weights, prompt, size, _ = network
    return StreamingEngine(weights, prompt, size, 'test', Options(cameras=cameras, **options))


@pytest.fixture(scope='module')
def captured(network):
    return engine(network)


def on_cpu(network):
    """The same weights on the CPU, where everything is computed in float32."""
    weights, prompt, size, _ = network

    def move(part):
        if isinstance(part, torch.Tensor):
            return part.cpu().float()
        if isinstance(part, list):
            return [move(item) for item in part]
        if hasattr(part, '__dataclass_fields__') and part is not weights.config:
            return replace(
                part, **{name: move(getattr(part, name)) for name in part.__dataclass_fields__}
            )
        return part

    return StreamingEngine(move(weights), prompt, size, 'test')


def test_graphs_do_what_uncaptured_steps_do(network, captured):
    """Bit for bit: the kernels are the same."""
    plain, frames = engine(network, graphs=False), network[3]
    one, other = captured.new_memory(), plain.new_memory()
    bound = BOUNDS[network[0].dtype]
    for i in range(frames):
        feed(captured, one, [i])
        feed(plain, other, [i])
        if i in (0, 1, frames // 2, frames - 1):
            same(one, other, bound)
            assert error(hidden(captured, one), hidden(plain, other)) < bound
    sampled = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=3)
    for sampling in (Sampling(max_tokens=12), sampled):
        texts = {
            ''.join(e.ask(m, QUESTION, sampling)) for e, m in ((captured, one), (plain, other))
        }
        assert len(texts) == 1


def test_the_gpu_agrees_with_the_cpu(network, captured):
    """The frames here are as large as the network's pictures, so that no resize differs."""
    reference = on_cpu(network)
    one, other = captured.new_memory(), reference.new_memory()
    bound, frames = BOUNDS[network[0].dtype], network[3]
    if network[0].dtype == torch.bfloat16:
        frames = 10  # past the window; the CPU takes seconds a frame
    for i in range(frames):
        for e, m in ((captured, one), (reference, other)):
            e.ingest(m, frame(i, *captured.frame_size), i * SECOND // 10)
    off = error(hidden(captured, one).cpu(), hidden(reference, other))
    print(f'GPU against CPU: {off:.2e}')
    assert off < bound


def test_frame_one_is_remembered_and_every_step_is_finite(network, captured):
    """States are poisoned first: whatever is read must have been written."""
    memories = [captured.new_memory() for _ in range(2)]
    for memory in memories:
        for tensor in memory.state.tensors.values():
            if tensor.is_floating_point():
                tensor.fill_(float('nan'))
        memory.reset()
    feed(captured, memories[0], range(network[3]))
    feed(captured, memories[1], [1000, *range(1, network[3])])
    assert all(t.isfinite().all() for t in memories[0].state.tensors.values())
    # Frame 0 left the window long ago: only the recurrent state still has it.
    name = f'layers.{captured.weights.config.num_hidden_layers - 1}.recurrent'
    assert not torch.equal(memories[0].state[name], memories[1].state[name])


def test_a_question_leaves_no_trace_and_frames_do_not_disturb_it(network, captured):
    quiet, asked = captured.new_memory(), captured.new_memory()
    frames = range(network[3])
    feed(captured, quiet, frames)
    feed(captured, asked, frames[:-4])
    alone = ''.join(captured.ask(asked, QUESTION, Sampling(max_tokens=12)))
    answer = captured.ask(asked, QUESTION, Sampling(max_tokens=12))
    second = captured.ask(asked, 'what else?', Sampling(max_tokens=12))
    for i in frames[-4:]:
        answer.step()
        second.step()
        feed(captured, asked, [i])
    list(second)
    assert answer.text + ''.join(answer) == alone
    assert identical(quiet, asked)


def test_two_cameras_interleaved_and_together(network, captured):
    frames = range(network[3])
    alone, first, second, third = (captured.new_memory() for _ in range(4))
    feed(captured, alone, frames)
    for i in frames:
        feed(captured, first, [i])
        feed(captured, second, [i + 500])
    assert identical(first, alone)
    second.reset()
    for i in frames:
        captured.ingest_together(
            [Frame(second, frame(i + 500), i * SECOND), Frame(third, frame(i), i * SECOND // 10)]
        )
    same(third, alone, BOUNDS[network[0].dtype])


def test_saved_in_the_middle_and_loaded_it_goes_on(network, captured, tmp_path):
    frames = range(network[3])
    whole, first, loaded = (captured.new_memory() for _ in range(3))
    feed(captured, whole, frames)
    feed(captured, first, frames[: len(frames) // 2])
    first.save(tmp_path / 'memory')
    loaded.load(tmp_path / 'memory')
    feed(captured, loaded, frames[len(frames) // 2 :])
    assert identical(loaded, whole)


@pytest.mark.parametrize('length', [1, 15, 16, 17, 40, 200, 300])
def test_questions_of_any_length(network, captured, length):
    """Padded to a bucket, or in parts: as one sequence, uncaptured and unpadded."""
    memory = captured.new_memory()
    feed(captured, memory, range(3))
    weights = captured.weights
    tokens = [int(t) for t in torch.randint(0, 500, (length,))]
    branch = captured._free[0].state
    branch.copy_(memory.state)
    block = captured.tokens_per_frame
    with torch.no_grad():
        for first in range(0, length, block):
            captured._runner.append(branch, tokens[first : first + block])
        found = captured._runner._text.scores.clone()
        branch.copy_(memory.state)
        ids = torch.tensor([tokens], device='cuda')
        positions = branch['largest'] + torch.arange(1, length + 1, device='cuda')
        x = decoder.decode(
            weights, decoder.embed(weights, ids), positions.expand(1, 3, -1), branch
        )
        wanted = decoder.logits(weights, x[0, -1])
    assert error(found, wanted) < BOUNDS[weights.dtype]


def test_memory_and_positions_after_very_many_frames(network, captured):
    """As if a million frames had passed: the counters are tensors and do not wrap."""
    memory, later = captured.new_memory(), captured.new_memory()
    feed(captured, memory, range(network[3]))
    later.copy_(memory)
    steps = captured.tokens_per_frame * 1_000_000
    ring = later.state.ring
    later.state['tokens'].add_(steps * ring)  # a whole number of turns: the same slots
    for m in (memory, later):
        feed(captured, m, range(50, 55))
    for name, tensor in memory.state.tensors.items():
        if name != 'tokens':
            assert torch.equal(tensor, later.state[name]), name


def test_nothing_grows(network, captured):
    gc.collect()  # an engine without graphs refers to itself: an earlier test's may still be there
    memory = captured.new_memory()
    sizes = set()
    for i in range(60):
        feed(captured, memory, [i % 5])
        list(captured.ask(memory, QUESTION, Sampling(max_tokens=2)))
        if i > 5:
            sizes.add(torch.cuda.memory_allocated())
    assert len(sizes) == 1


def test_two_frames_in_one_grid(network):
    pairs = engine(network, cameras=1, frames_per_grid=2)
    plain = on_cpu(network)
    plain.options = replace(plain.options, frames_per_grid=2)
    one, other = pairs.new_memory(), plain.new_memory()
    for i in range(5):
        for e, m in ((pairs, one), (plain, other)):
            e.ingest(m, frame(i, *pairs.frame_size), i * SECOND // 10)
    assert (len(one.waiting), one.frames) == (1, 5)
    assert int(one.state['tokens']) == int(other.state['tokens'])
    assert error(hidden(pairs, one).cpu(), hidden(plain, other)) < BOUNDS[pairs.weights.dtype]


@pytest.mark.parametrize('grids', [1, 2])
def test_a_frame_that_is_made_where_it_is_copied_from(network, grids):
    """Of changing sizes, of one camera and of two, or from anywhere else: the same bits."""
    e = engine(network, cameras=4, frames_per_grid=grids)
    plain, made = [e.new_memory(), e.new_memory()], [e.new_memory(), e.new_memory()]
    for i in range(4 * grids):
        pixels = [frame(i + 50 * c, 120 + 40 * (i // 2), 160) for c in range(2)]
        stamp = i * SECOND // 10
        e.ingest_together([Frame(m, p, stamp) for m, p in zip(plain, pixels, strict=True)])
        frames = []
        for place, (memory, picture) in enumerate(zip(made, pixels, strict=True)):
            room = e.room_for_frame(memory, picture.shape, place, 2)
            room[:] = picture
            frames.append(Frame(memory, room, stamp))
        e.ingest_together(frames)
        assert all(map(identical, made, plain))
    picture = frame(9, 120, 160)
    fixed = picture.copy()
    fixed.flags.writeable = False
    mirrored = np.ascontiguousarray(picture[:, ::-1])[:, ::-1]

    def part(of):
        of[:, :160] = picture
        return of[:, :160]

    for make in (
        lambda: part(np.zeros((120, 200, 3), np.uint8)),
        lambda: part(e.room_for_frame(made[0], (120, 200, 3))),
        lambda: fixed,
        lambda: mirrored,
    ):
        for _ in range(grids):
            e.ingest(made[0], make(), 10 * SECOND)
            e.ingest(plain[0], picture, 10 * SECOND)
        assert identical(made[0], plain[0])


def test_answers_in_json(checkpoint):
    """Greedy and drawn; a free answer beside them is what it is alone."""
    e = StreamingEngine.from_checkpoint(checkpoint, 'cuda', options=Options(branches=2))
    memory = e.new_memory()
    feed(e, memory, range(3))
    number = {'type': 'integer', 'minimum': 0, 'maximum': 99}
    schema = json.dumps(
        {
            'type': 'object',
            'properties': {'n': number},
            'required': ['n'],
            'additionalProperties': False,
        }
    )
    alone = ''.join(e.ask(memory, QUESTION, Sampling(max_tokens=30)))
    for temperature in (0.0, 1.0):
        free = e.ask(memory, QUESTION, Sampling(max_tokens=30))
        answer = e.ask(memory, QUESTION, Sampling(60, temperature, seed=1, json_schema=schema))
        while not (free.finish and answer.finish):
            free.step()
            answer.step()
        assert answer.finish == 'end'
        assert json.loads(answer.text)['n'] in range(100)
        assert free.text == alone


def test_more_memories_than_cameras_are_refused(captured):
    kept = [captured.new_memory() for _ in range(4)]
    with pytest.raises(RuntimeError, match='all 4 memories'):
        captured.new_memory()
    del kept
    captured.new_memory()


def test_fp8_costs_what_is_stated(mid):
    """8-bit weights and inputs: README states the error of the final hidden states."""
    weights, prompt = mid
    exact = StreamingEngine(weights, prompt, (448, 448), 'test')
    rounded = StreamingEngine(weights, prompt, (448, 448), 'test', fp8=True)
    one, other = exact.new_memory(), rounded.new_memory()
    for e, m in ((exact, one), (rounded, other)):
        feed(e, m, range(12))
    off = error(hidden(rounded, other), hidden(exact, one))
    print(f'fp8: {off:.4f}')
    assert 0.005 < off < 0.15
