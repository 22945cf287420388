"""StreamingEngine and VisualMemory: what goes in, what stays, what a question sees."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitevl_ros.engine import Options, Sampling, StreamingEngine
from infinitevl_ros.engine.sampling import draw
from infinitevl_ros.model import decoder, vision
from infinitevl_ros.model.kernels import plain as kernels
from infinitevl_ros.model.state import StreamState

SECOND = 1_000_000_000


def frame(seed, height=120, width=160):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def filled(engine, frames, rate=10):
    memory = engine.new_memory()
    for i in range(frames):
        engine.ingest(memory, frame(i), 5 * SECOND + i * SECOND // rate)
    return memory


def bits(memory):
    return {name: t.clone() for name, t in memory.state.tensors.items()}


def unchanged(memory, before):
    return all(torch.equal(t, before[name]) for name, t in memory.state.tensors.items())


def one_sequence(engine, frames, question, tokens):
    """The same stream and answer as one long sequence, laid out by hand; greedy token ids."""
    weights, config = engine.weights, engine.weights.config
    header = engine.prompt.header('header_first')
    parts = [decoder.embed(weights, torch.tensor([header]))]
    positions = [torch.arange(len(header)).expand(3, -1)]
    rows, columns = (side // 28 for side in engine.frame_size)
    for i in range(frames):
        pixels = vision.resize(torch.from_numpy(frame(i)), engine.frame_size)
        patches = vision.patchify(pixels, config.vision, weights.dtype)
        parts.append(vision.encode(weights, patches[None], (2 * rows, 2 * columns)))
        t = config.vision.tokens_per_second * (i // 10)
        grid = [(t, row, column) for row in range(rows) for column in range(columns)]
        positions.append(torch.tensor(grid).T + len(header))
    prompt = engine.prompt.question(question, 'header_first')
    last = max(int(p.max()) for p in positions)
    positions.append((last + 1 + torch.arange(len(prompt))).expand(3, -1))
    parts.append(decoder.embed(weights, torch.tensor([prompt])))
    last += len(prompt)
    said = []
    for _ in range(tokens):
        x, p = torch.cat(parts, 1), torch.cat(positions, 1)[None]
        state = StreamState(config, block=x.shape[1])
        said.append(
            int(decoder.logits(weights, decoder.decode(weights, x, p, state))[0, -1].argmax())
        )
        last += 1
        parts.append(decoder.embed(weights, torch.tensor([said[-1:]])))
        positions.append(torch.full((3, 1), last))
    return said


def token_ids(answer):
    list(answer)
    return answer.token_ids


@pytest.mark.parametrize('frames', [1, 7, 45])
def test_a_stream_is_one_long_sequence(engine, frames):
    """Also past the window of 32 frames."""
    answer = engine.ask(filled(engine, frames), 'what do you see?', Sampling(max_tokens=12))
    assert token_ids(answer) == one_sequence(engine, frames, 'what do you see?', 12)


def test_memory_never_grows(engine):
    memory = engine.new_memory()
    sizes = {}
    for i in range(500):
        engine.ingest(memory, frame(i % 7, 40, 60), i * SECOND // 10)
        sizes[i + 1] = (
            {name: (t.shape, t.dtype, t.data_ptr()) for name, t in memory.state.tensors.items()},
            memory.nbytes,
        )
    assert sizes[5] == sizes[500]
    assert memory.nbytes == sum(t.nbytes for t in memory.state.tensors.values())
    info = memory.describe()
    assert (info.frames, info.nbytes) == (500, memory.nbytes)
    assert info.tokens == len(engine.prompt.header('header_first')) + 500 * engine.tokens_per_frame
    assert info.window_tokens == engine.weights.config.sliding_window


def test_a_question_leaves_the_memory_bit_identical(engine):
    memory = filled(engine, 40)
    before = bits(memory)
    text = ''.join(engine.ask(memory, 'where is the red ball?', Sampling(max_tokens=30)))
    assert unchanged(memory, before)
    # And the stream goes on as if nobody had asked.
    quiet = filled(engine, 40)
    for m in (memory, quiet):
        engine.ingest(m, frame(99), 60 * SECOND)
    assert unchanged(memory, bits(quiet))
    assert text == ''.join(
        engine.ask(filled(engine, 40), 'where is the red ball?', Sampling(max_tokens=30))
    )


def test_frames_during_an_answer_do_not_change_it(engine):
    wanted = list(engine.ask(filled(engine, 5), 'what?', Sampling(max_tokens=20)))
    memory = filled(engine, 5)
    answer = engine.ask(memory, 'what?', Sampling(max_tokens=20))
    found = []
    for i, piece in enumerate(answer):
        found.append(piece)
        engine.ingest(memory, frame(i + 50), (10 + i) * SECOND)
    assert found == wanted
    assert answer.frames == 5
    assert memory.frames == 5 + len(found)


def test_every_frame_counts(engine):
    """Frame 1 of 45 lies outside the window: only the recurrent state can carry it."""
    one, other = engine.new_memory(), engine.new_memory()
    for i in range(45):
        engine.ingest(one, frame(i), i * SECOND)
        engine.ingest(other, frame(i + 1000 * (i == 0)), i * SECOND)
    assert not unchanged(one, bits(other))


def test_memories_do_not_mix(engine):
    alone = filled(engine, 6)
    first, second = engine.new_memory(), engine.new_memory()
    for i in range(6):
        engine.ingest(first, frame(i), 5 * SECOND + i * SECOND // 10)
        engine.ingest(second, frame(i + 100), i * SECOND)
    assert unchanged(first, bits(alone))


def test_reset_is_a_new_memory(engine):
    memory = filled(engine, 40)
    memory.reset()
    assert unchanged(memory, bits(engine.new_memory()))
    assert memory.describe().frames == 0
    assert memory.newest_stamp is None
    with pytest.raises(ValueError, match='no frame seen yet'):
        engine.ask(memory, 'what?')


@pytest.mark.parametrize('size', [(1, 1), (28, 500), (480, 640), (720, 1280), (112, 112)])
def test_frames_of_any_size(engine, size):
    memory = engine.new_memory()
    engine.ingest(memory, frame(0, *size), 0)
    assert memory.state.layer(1, 'recurrent').isfinite().all()


@pytest.mark.parametrize(
    'bad',
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_not_a_frame_is_refused_and_nothing_is_lost(engine, bad):
    memory = filled(engine, 2)
    before = bits(memory)
    with pytest.raises(ValueError, match='RGB uint8'):
        engine.ingest(memory, bad, 0)
    assert unchanged(memory, before)
    assert memory.frames == 2


def test_frames_may_be_read_only_or_strided(engine):
    wanted, found = engine.new_memory(), engine.new_memory()
    pixels = frame(3)
    engine.ingest(wanted, pixels, 0)
    view = np.frombuffer(pixels[:, ::-1].tobytes(), np.uint8).reshape(pixels.shape)[:, ::-1]
    assert not view.flags.writeable
    engine.ingest(found, view, 0)
    assert unchanged(found, bits(wanted))


def test_time_steps_once_a_second_and_jumps_of_the_clock_are_none(engine):
    memory = engine.new_memory()
    times = []
    for stamp in (10.0, 10.9, 11.0, 12.5, 3.0, 5.0, 1.7e9, 1.7e9 + 1, 0):
        engine.ingest(memory, frame(0), int(stamp * SECOND))
        times.append(int(memory.state['time']))
    assert times == [0, 0, 2, 4, 4, 8, 8, 10, 10]
    assert (memory.first_stamp, memory.newest_stamp) == (10 * SECOND, 0)


def test_frames_that_are_not_square(checkpoint):
    """Rows and columns keep their places from picture to position."""
    engine = StreamingEngine.from_checkpoint(checkpoint, frame_size=(56, 140))
    answer = engine.ask(filled(engine, 4), 'what do you see?', Sampling(max_tokens=12))
    assert token_ids(answer) == one_sequence(engine, 4, 'what do you see?', 12)


def test_a_device_failure_in_mid_frame_leaves_no_half_memory(engine, monkeypatch):
    memory = filled(engine, 3)
    calls = iter(range(100))
    whole = kernels.delta_rule

    def fails(*arguments):
        if next(calls) == 2:
            raise RuntimeError('out of memory')
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kernels, 'delta_rule', fails)
        with pytest.raises(RuntimeError, match='out of memory'):
            engine.ingest(memory, frame(9), 9 * SECOND)
    assert unchanged(memory, bits(engine.new_memory()))
    engine.ingest(memory, frame(9), 9 * SECOND)
    assert memory.frames == 1


def test_a_memory_of_another_engine_is_refused(engine, checkpoint):
    other = StreamingEngine.from_checkpoint(checkpoint, frame_size=(56, 140))
    memory = filled(other, 1)
    for use in (lambda: engine.ask(memory, 'what?'), lambda: engine.ingest(memory, frame(0), 0)):
        with pytest.raises(ValueError, match='made by another engine'):
            use()
    assert len(engine._free) == 2


def test_a_device_that_does_not_exist(checkpoint):
    for device in ('cdua', 'cuda:99'):
        with pytest.raises(ValueError, match=f'device "{device}" cannot be used'):
            StreamingEngine.from_checkpoint(checkpoint, device)


def test_empty_and_endless_questions(engine):
    memory = filled(engine, 1)
    with pytest.raises(ValueError, match='question is empty'):
        engine.ask(memory, ' \n')
    with pytest.raises(ValueError, match='at most 2048'):
        engine.ask(memory, 'what ' * 5000)
    with pytest.raises(ValueError, match='at most 32768'):
        engine.ask(memory, 'a' * 5_000_000)


def test_a_long_question_is_taken_in_parts_of_a_frames_size(engine):
    """Between them the camera's frames have their turn."""
    memory = filled(engine, 1)
    answer = engine.ask(memory, 'what ' * 200, Sampling(max_tokens=1))
    prompt = len(engine.prompt.question('what ' * 200, 'header_first'))
    steps = 0
    while not answer.finish:
        answer.step()
        steps += 1
    assert steps == -(-prompt // engine.tokens_per_frame) > 10


def test_branches_are_limited_and_come_back(checkpoint):
    engine = StreamingEngine.from_checkpoint(checkpoint, options=Options(branches=2))
    memory = filled(engine, 1)
    for _ in range(3):
        answers = [engine.ask(memory, 'what?') for _ in range(2)]
        with pytest.raises(RuntimeError, match='too many open answers'):
            engine.ask(memory, 'what?')
        answers[0].close()
        assert answers[0].finish == 'closed'
        assert answers[0].step() == ''
        del answers


def test_an_answer_tells_how_it_ended(engine):
    memory = filled(engine, 3)
    answer = engine.ask(memory, 'what?', Sampling(max_tokens=4))
    text = ''.join(answer)
    assert (answer.text, answer.tokens, answer.finish) == (text, 4, 'length')
    assert (answer.frames, answer.first_stamp) == (3, 5 * SECOND)
    assert answer.newest_stamp == 5 * SECOND + 2 * SECOND // 10
    assert answer.seconds > 0


def test_the_end_token_ends_an_answer_and_is_not_said(engine, checkpoint, tmp_path):
    memory = filled(engine, 3)
    tokens = token_ids(engine.ask(memory, 'what?', Sampling(max_tokens=3)))
    folder = tmp_path / 'ends'
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / 'config.json').read_text())
    # A list, as some published configurations have it.
    config['eos_token_id'] = [config['eos_token_id'], tokens[2]]
    (folder / 'config.json').write_text(json.dumps(config))
    short = StreamingEngine.from_checkpoint(folder)
    answer = short.ask(filled(short, 3), 'what?', Sampling(max_tokens=3))
    text = ''.join(answer)
    first = tokens.index(tokens[2])
    assert (answer.finish, answer.tokens) == ('end', first)
    assert text == short.prompt.decode(tokens[:first])


def test_caption_is_a_question_of_its_own(engine):
    memory = filled(engine, 3)
    short = Sampling(max_tokens=8)
    wanted = ''.join(engine.ask(memory, 'say something', short))
    assert ''.join(engine.caption(memory, 'say something', short)) == wanted
    assert engine.caption(memory, sampling=short).step() is not None


def test_sampling_is_drawn_by_seed(engine):
    memory = filled(engine, 3)

    def say(seed, temperature=1.5):
        sampling = Sampling(max_tokens=20, temperature=temperature, top_p=0.95, seed=seed)
        return ''.join(engine.ask(memory, 'what?', sampling))

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1
    assert say(1, temperature=0.0) == ''.join(engine.ask(memory, 'what?', Sampling(max_tokens=20)))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=20),
    st.floats(0.05, 3),
    st.floats(0.01, 1),
    st.integers(0, 2**63 - 1),
)
def test_top_p_draws_from_the_nucleus_only(scores, temperature, top_p, seed):
    scores = torch.tensor(scores)
    values = (temperature, top_p, next(Sampling(seed=seed).chances()))
    token = int(draw(scores, *torch.tensor(values)[:, None]))
    chance = torch.softmax(scores / temperature, 0)
    # What is at least as likely as nothing more than this token's rivals must not fill top_p yet.
    likelier = chance[chance > chance[token]].sum()
    assert likelier < top_p + 1e-5


def test_frequencies_follow_the_probabilities():
    scores = torch.tensor([0.6, 0.3, 0.1]).log()
    chances = Sampling(seed=0).chances()
    values = [torch.tensor((1.0, 0.85, next(chances)))[:, None] for _ in range(3000)]
    draws = [int(draw(scores, *v)) for v in values]
    counts = np.bincount(draws, minlength=3) / len(draws)
    np.testing.assert_allclose(counts, [2 / 3, 1 / 3, 0], atol=0.03)


@pytest.mark.parametrize(
    'wrong',
    [
        {'max_tokens': 0},
        {'temperature': -1},
        {'temperature': float('nan')},
        {'top_p': 0},
        {'top_p': 1.5},
        {'seed': -1},
    ],
)
def test_sampling_is_checked(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} is'):
        Sampling(**wrong)


def test_frame_size_is_checked(checkpoint):
    with pytest.raises(ValueError, match='multiples of 28'):
        StreamingEngine.from_checkpoint(checkpoint, frame_size=(100, 112))
    engine = StreamingEngine.from_checkpoint(checkpoint, frame_size=(56, 140))
    assert engine.tokens_per_frame == 10
    assert list(engine.ask(filled(engine, 3), 'what?', Sampling(max_tokens=5))) is not None


def test_bfloat16_runs(checkpoint):
    engine = StreamingEngine.from_checkpoint(checkpoint, dtype=torch.bfloat16)
    memory = filled(engine, 40)
    assert ''.join(engine.ask(memory, 'what?', Sampling(max_tokens=10)))
    assert memory.nbytes < StreamingEngine.from_checkpoint(checkpoint).new_memory().nbytes


def test_loading_the_engine_loads_nothing_of_the_gpus_tool_chain():
    code = (
        'import sys, infinitevl_ros.engine\n'
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(*loaded & {'triton', 'fla', 'flash_attn', 'transformers'})"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, ''), result.stderr
