"""What a user may choose: two frames a grid, other positions, the published prompt order."""

import pytest
import torch
from test_engine import SECOND, bits, filled, frame, one_sequence, unchanged

from infinitevl_ros.engine import Options, Sampling, StreamingEngine
from infinitevl_ros.model import decoder, kernels, vision
from infinitevl_ros.model.state import StreamState

QUESTION = 'what do you see?'


def engine_with(checkpoint, **options):
    return StreamingEngine.from_checkpoint(checkpoint, options=Options(**options))


def answer(engine, memory, tokens=12):
    said = engine.ask(memory, QUESTION, Sampling(max_tokens=tokens))
    list(said)
    return said.token_ids


@pytest.mark.parametrize(
    'wrong',
    [
        {'cameras': 0},
        {'branches': 0},
        {'frames_per_grid': 3},
        {'positions': 'other'},
        {'prompt_layout': ''},
    ],
)
def test_options_are_checked(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} is .*, expected'):
        Options(**wrong)


def test_8_bits_need_a_gpu(checkpoint):
    with pytest.raises(ValueError, match='fp8 is not to be had: device "cpu" is not an NVIDIA'):
        StreamingEngine.from_checkpoint(checkpoint, fp8=True)
    engine = StreamingEngine.from_checkpoint(checkpoint)
    assert kernels.fastest(engine.weights) is engine.weights


def test_two_frames_fill_the_two_temporal_slots(checkpoint):
    engine = engine_with(checkpoint, frames_per_grid=2)
    memory = engine.new_memory()
    tokens = int(memory.state['tokens'])
    engine.ingest(memory, frame(0), 0)
    assert (memory.frames, len(memory.waiting)) == (1, 1)
    with pytest.raises(ValueError, match='no frame seen yet'):
        engine.ask(memory, QUESTION)
    engine.ingest(memory, frame(1), SECOND)
    assert (memory.frames, len(memory.waiting)) == (2, 0)
    assert int(memory.state['tokens']) == tokens + engine.tokens_per_frame
    assert int(memory.state['time']) == 2  # of the newer frame

    config = engine.weights.config.vision
    slots = [
        vision.patchify(
            vision.resize(torch.from_numpy(frame(i)), engine.frame_size), config, torch.float32
        ).unflatten(1, (3, 2, -1))[:, :, 0]
        for i in range(2)
    ]
    patches = torch.stack(slots, 2).flatten(1)
    side = engine.frame_size[0] // config.patch_size
    wanted = engine.new_memory()
    with torch.no_grad():
        tokens = vision.encode(engine.weights, patches[None], (side, side))
        cells = torch.arange(engine.tokens_per_frame)
        columns = side // config.spatial_merge_size
        positions = torch.stack((cells * 0 + 2, cells // columns, cells % columns))
        positions = positions[None] + wanted.state['origin']
        turn = wanted.state.advance(positions)
        rope = decoder.rope_tables(engine.weights.config, positions)
        decoder.remember(engine.weights, tokens, turn, rope, wanted.state)
    assert torch.equal(memory.state.layer(3, 'recurrent'), wanted.state.layer(3, 'recurrent'))


def test_a_waiting_frame_is_a_copy_and_goes_with_a_reset(checkpoint):
    engine = engine_with(checkpoint, frames_per_grid=2)
    wanted, memory = (engine.new_memory() for _ in range(2))
    pixels = frame(0)
    for m in (wanted, memory):
        engine.ingest(m, pixels, 0)
    pixels[:] = 0  # a camera driver reuses its buffer
    engine.ingest(wanted, frame(1), 1)
    memory.reset()
    engine.ingest(memory, frame(0), 0)
    engine.ingest(memory, frame(1), 1)
    assert unchanged(memory, bits(wanted))


def test_rebased_questions_stand_as_if_the_newest_frame_were_the_first(checkpoint):
    """A stream whose clock is hours on answers as one that has just begun.

    (Both have left the header, whose distance in time does differ, behind the window.)
    """
    engine = engine_with(checkpoint, positions='rebased')
    early, late = (engine.new_memory() for _ in range(2))
    hour = 3600 * SECOND
    engine.ingest(late, frame(9), 0)
    late.elapsed = 5 * hour  # as if frames had come all the while
    late.state.copy_(engine.new_memory().state)
    for i in range(45):
        engine.ingest(early, frame(i), i * SECOND // 10)
        engine.ingest(late, frame(i), i * SECOND // 10)
    assert int(late.state['time']) == 2 * (3600 * 5 + 4)
    assert answer(engine, late) == answer(engine, early)
    # Published positions put the question 36,000 rows away from the picture.
    published = StreamingEngine.from_checkpoint(checkpoint)
    branch = published.new_memory()
    branch.state.copy_(late.state)
    branch.frames = 45
    assert answer(published, branch, 40) != answer(engine, late, 40)


def test_in_a_young_stream_both_positions_are_the_same(checkpoint, engine):
    """While the time is 0 there is nothing to re-base."""
    rebased = engine_with(checkpoint, positions='rebased')
    assert answer(rebased, filled(rebased, 7)) == one_sequence(engine, 7, QUESTION, 12)


def test_published_layout_puts_the_template_behind_the_video(checkpoint, engine):
    published = engine_with(checkpoint, prompt_layout='published')
    prompt = published.prompt
    header = prompt.header('header_first')
    assert prompt.header('published') == header[-1:]
    first, other = (prompt.question('hm', layout) for layout in ('header_first', 'published'))
    assert other == first[:1] + header[:-1] + first[1:]
    memory = filled(published, 3)
    assert int(memory.state['tokens']) == 1 + 3 * published.tokens_per_frame
    assert len(answer(published, memory)) == 12


@pytest.mark.parametrize('lengths', [(1, 16), (16, 3), (7, 1)])
def test_padding_leaves_no_trace(engine, lengths):
    """Rows of a pool, some padded, in any order: each as it is alone, unpadded."""
    weights = engine.weights
    config, block = weights.config, engine.tokens_per_frame
    pool = StreamState(config, block, rows=3)
    random = torch.Generator().manual_seed(0)
    rows = torch.tensor([2, 0])
    alone = [StreamState(config, block) for _ in rows]
    untouched = {name: t[1].clone() for name, t in pool.tensors.items()}
    for _ in range(3):
        x = torch.randn(2, 16, config.hidden_size, generator=random)
        positions = pool['largest'][rows][:, None, None] + 1 + torch.arange(16)
        positions = positions.expand(-1, 3, -1)
        with torch.no_grad():
            found = decoder.decode(weights, x, positions, pool, rows, torch.tensor(lengths))
            for i, (state, length) in enumerate(zip(alone, lengths, strict=True)):
                part = x[i : i + 1, :length], positions[i : i + 1, :, :length]
                wanted = decoder.decode(weights, *part, state)
                torch.testing.assert_close(found[i, :length], wanted[0], atol=1e-4, rtol=0)
    for i, state in enumerate(alone):
        for name in ('recurrent', 'conv'):
            found = pool.row(int(rows[i])).layer(1, name)
            torch.testing.assert_close(found, state.layer(1, name), atol=1e-4, rtol=0)
        assert all(
            int(pool[name][rows[i]]) == int(state[name])
            for name in ('tokens', 'cursor', 'largest')
        )
    assert all(torch.equal(t[1], untouched[name]) for name, t in pool.tensors.items())


def test_the_angle_of_a_late_position_keeps_its_digits(engine):
    """A day on, float32 would be off by hundredths."""
    day = 2 * 86400
    late = torch.tensor([day, day + 1]).expand(1, 3, -1)
    cos, sin = decoder.rope_tables(engine.weights.config, late)
    # cos(a - b) of neighbours is that of position 1, at the highest frequency.
    near = cos[0, 0, 0, 0] * cos[0, 0, 1, 0] + sin[0, 0, 0, 0] * sin[0, 0, 1, 0]
    assert abs(float(near) - float(torch.tensor(1.0).cos())) < 1e-6
