"""The scheduler with the real engine: frames first, answers in between, everything ends."""

import gc
import json
import queue
import threading
import time
import weakref

import numpy as np
import pytest
from streaming import FRAME, LONG, Stream

from infinitevl_ros.engine import QueueFullError, Sampling, Scheduler, StreamingEngine


@pytest.fixture
def stream(engine):
    stream = Stream(engine, max_questions=3)
    yield stream
    stream.scheduler.close()
    assert len(engine._free) == 2


def test_an_answer_is_the_engines(stream, engine):
    stream.take()
    pieces = []
    _, done = stream.ask(on_piece=pieces.append, sampling=Sampling(max_tokens=10))
    outcome = done.get(timeout=10)
    memory = engine.new_memory()
    engine.ingest(memory, FRAME, 1)
    answer = engine.ask(memory, 'what?', Sampling(max_tokens=10))
    assert outcome.success
    assert outcome.text == ''.join(answer) == ''.join(pieces)
    assert (outcome.tokens, outcome.frames, outcome.newest_stamp) == (10, 1, 1)
    assert outcome.seconds > 0


def test_frames_are_taken_while_an_answer_is_decoded(stream):
    stream.take()
    ticket, done = stream.ask(sampling=LONG)
    for _ in range(10):
        stream.take()
    assert done.empty()
    ticket.cancel()
    outcome = done.get(timeout=10)
    assert (outcome.success, outcome.message) == (False, 'cancelled')
    assert outcome.tokens > 0
    assert outcome.text


def test_answers_go_on_while_frames_come_faster_than_they_can_be_taken(stream):
    stream.take()
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            stream.frame()
            time.sleep(0.001)

    thread = threading.Thread(target=flood)
    thread.start()
    _, done = stream.ask(sampling=Sampling(max_tokens=20))
    outcome = done.get(timeout=20)
    stop.set()
    thread.join()
    assert outcome.success
    counts = stream.counts
    assert counts.dropped > 0
    assert counts.taken > 5
    # One may wait, another be on its way into the memory.
    assert counts.received - counts.taken - counts.dropped <= 2


def test_the_newest_frame_is_kept_and_dropped_ones_are_never_made(stream):
    entered, leave = threading.Event(), threading.Event()

    def slow(_):
        entered.set()
        leave.wait(10)
        return FRAME

    def never(_):
        raise AssertionError('a dropped frame was decoded')

    stream.frame(slow)
    assert entered.wait(10)
    stream.frame(never)
    stream.frame(never)
    newest = stream.frame()
    leave.set()
    assert [stream.taken.get(timeout=10) for _ in range(2)] == [1, newest]
    assert (stream.counts.received, stream.counts.taken, stream.counts.dropped) == (4, 2, 2)
    assert stream.errors.empty()


def test_a_bad_frame_is_reported_and_the_stream_goes_on(stream):
    def broken(_):
        raise ValueError('no picture in it')

    stream.frame(broken)
    assert str(stream.errors.get(timeout=10)) == 'no picture in it'
    stream.frame(np.zeros(3))
    assert 'RGB uint8' in str(stream.errors.get(timeout=10))
    stream.take()
    assert (stream.counts.failed, stream.counts.taken) == (2, 1)


def test_a_full_queue_says_so_at_once(stream):
    stream.take()
    tickets = [stream.ask(sampling=LONG) for _ in range(3)]
    with pytest.raises(QueueFullError, match='3 questions are waiting'):
        stream.ask()
    for ticket, _ in tickets:
        ticket.cancel()
    for _, done in tickets:
        assert done.get(timeout=10).message == 'cancelled'
    assert stream.ask(sampling=Sampling(max_tokens=2))[1].get(timeout=10).success


def test_a_deadline_ends_an_answer_and_keeps_what_was_said(stream):
    stream.take()
    _, done = stream.ask(sampling=LONG, timeout=0.3)
    outcome = done.get(timeout=10)
    assert not outcome.success
    assert outcome.message == 'no answer within 0.3 s'
    assert outcome.text
    assert 0.3 <= outcome.seconds < 5


def test_a_deadline_also_ends_what_never_had_its_turn(stream):
    stream.take()
    first, first_done = stream.ask(sampling=LONG)
    _, done = stream.ask(timeout=0.2)
    outcome = done.get(timeout=10)
    assert first_done.empty()
    assert (outcome.success, outcome.tokens) == (False, 0)
    assert outcome.message == 'no answer within 0.2 s'
    memory = stream.memory
    seen = memory.frames, memory.first_stamp, memory.newest_stamp
    assert (outcome.frames, outcome.first_stamp, outcome.newest_stamp) == seen
    assert seen[0] > 0
    first.cancel()


def test_a_cancelled_question_frees_its_place_where_it_waits(stream):
    stream.take()
    first, first_done = stream.ask(sampling=LONG)
    waiting = [stream.ask(sampling=LONG) for _ in range(2)]
    for ticket, done in waiting:
        ticket.cancel()
        assert done.get(timeout=10).message == 'cancelled'
    assert first_done.empty()
    stream.ask()
    first.cancel()


def test_a_frame_that_waits_goes_before_a_question(stream):
    """Also when the frame before it came long ago: its time owes the answer nothing now."""
    stream.take()
    time.sleep(0.1)
    blocked, leave = threading.Event(), threading.Event()
    stream.scheduler.call(lambda: blocked.set() or leave.wait(10))
    assert blocked.wait(10)
    _, done = stream.ask(sampling=Sampling(max_tokens=2))
    newest = stream.frame()
    leave.set()
    assert done.get(timeout=10).newest_stamp == newest


@pytest.mark.parametrize('question', ['', 'x ' * 5000])
def test_a_question_that_cannot_be_asked_gets_its_reason(stream, question):
    stream.take()
    outcome = stream.ask(question)[1].get(timeout=10)
    assert not outcome.success
    assert 'question is' in outcome.message


def test_a_question_before_the_first_frame(stream):
    assert stream.ask()[1].get(timeout=10).message == 'no frame seen yet'


def test_a_check_does_not_wait_for_an_answer_nor_the_other_way_round(stream):
    stream.take()
    question, answered = stream.ask(sampling=LONG)
    checked = queue.Queue()
    short = Sampling(max_tokens=5)
    stream.scheduler.check(stream.memory, 'what?', checked.put, short)
    assert checked.get(timeout=10).tokens == 5
    check = stream.scheduler.check(stream.memory, 'what?', checked.put, LONG)
    question.cancel()
    assert answered.get(timeout=10).message == 'cancelled'
    assert stream.ask(sampling=short)[1].get(timeout=10).tokens == 5
    assert checked.empty()
    check.cancel()
    assert checked.get(timeout=10).message == 'cancelled'


def test_a_caption_is_about_the_frame_it_was_begun_after(engine):
    """However many frames come while it is in the making, and whatever else is asked."""
    captions, refused = queue.Queue(), queue.Queue()

    def on_frame(memory):
        try:
            sampling = Sampling(max_tokens=40)
            stream.scheduler.caption(memory, 'what?', captions.put, sampling)
        except QueueFullError as error:
            refused.put((memory.newest_stamp, str(error)))
        stream.taken.put(memory.newest_stamp)

    stream = Stream(engine)
    stream.scheduler._on_frame = on_frame
    question, _ = stream.ask(sampling=LONG)
    for _ in range(4):
        stream.take()
    first = captions.get(timeout=10)
    assert (first.newest_stamp, first.frames, first.tokens) == (1, 1, 40)
    assert refused.get(timeout=10) == (2, 'the one before is still in the making')
    question.cancel()
    assert stream.ask(sampling=Sampling(max_tokens=2))[1].get(timeout=10).success
    stream.scheduler.close()
    reference = engine.new_memory()
    engine.ingest(reference, FRAME, 1)
    assert first.text == ''.join(engine.ask(reference, 'what?', Sampling(max_tokens=40)))


def test_a_failing_engine_is_told_apart_from_bad_frames_and_questions(checkpoint, monkeypatch):
    engine = StreamingEngine.from_checkpoint(checkpoint)
    failures = queue.Queue()
    stream = Stream(engine, on_failure=failures.put)
    stream.take()
    stream.frame(np.zeros(3))
    assert 'RGB uint8' in str(stream.errors.get(timeout=10))
    assert not stream.ask('x ' * 5000)[1].get(timeout=10).success
    assert failures.empty()

    def fail(*_):
        raise RuntimeError('the device is gone')

    monkeypatch.setattr(engine._runner, 'ingest', fail)
    stream.frame()
    assert str(failures.get(timeout=10)) == 'the device is gone'
    assert str(stream.errors.get(timeout=10)) == 'the device is gone'
    monkeypatch.undo()
    stream.take()
    monkeypatch.setattr(engine._runner, 'begin', fail)
    assert stream.ask()[1].get(timeout=10).message == 'the device is gone'
    assert str(failures.get(timeout=10)) == 'the device is gone'
    stream.scheduler.close()


def test_a_reset_goes_between_tokens_and_takes_the_waiting_frame_along(stream):
    stream.take()
    blocked, leave = threading.Event(), threading.Event()
    stream.scheduler.call(lambda: blocked.set() or leave.wait(10))
    assert blocked.wait(10)
    stream.ask(sampling=LONG)
    stream.frame()
    forgotten = queue.Queue()
    stream.scheduler.reset(stream.memory, forgotten.put)
    after = stream.frame()
    leave.set()
    assert forgotten.get(timeout=10) == 1
    assert stream.taken.get(timeout=10) == after, 'what comes after it is kept'
    assert stream.memory.frames == 1
    assert (stream.counts.received, stream.counts.taken, stream.counts.dropped) == (3, 2, 1)


def test_failing_callbacks_do_not_end_the_thread(stream):
    def fail(*_):
        raise SystemExit('a client went away')

    stream.take()
    stream.scheduler.ask(
        stream.memory, 'what?', fail, on_piece=fail, sampling=Sampling(max_tokens=3)
    )
    stream.scheduler.call(fail)
    stream.take()
    assert stream.ask(sampling=Sampling(max_tokens=3))[1].get(timeout=10).success


def test_cameras_take_turns(engine):
    """A camera that floods does not keep another one out."""
    taken = []
    scheduler = Scheduler(engine, on_frame=lambda memory: taken.append(memory))
    greedy, modest = engine.new_memory(), engine.new_memory()
    ended = time.monotonic() + 10
    scheduler.offer(modest, FRAME, 1)
    while taken.count(modest) < 5 and time.monotonic() < ended:
        scheduler.offer(greedy, FRAME, 1)
        scheduler.offer(modest, FRAME, 1)
        time.sleep(0.001)
    scheduler.close()
    assert taken.count(modest) >= 5
    assert abs(taken.count(modest) - taken.count(greedy)) <= 2


def test_memories_are_forgotten_when_nobody_holds_them(engine):
    stream = Stream(engine)
    stream.take()
    memory = weakref.ref(stream.memory)
    stream.scheduler._thread.join(0.1)
    stream.memory = None
    gc.collect()
    stream.scheduler.close()
    assert memory() is None


def test_close_ends_every_question(engine):
    stream = Stream(engine)
    stream.take()
    waiting = [stream.ask(sampling=LONG)[1] for _ in range(3)]
    stream.scheduler.close()
    for done in waiting:
        assert done.get(timeout=1).message == 'the node is shutting down'
    with pytest.raises(QueueFullError, match='shutting down'):
        stream.ask()
    with pytest.raises(RuntimeError, match='shutting down'):
        stream.scheduler.call(lambda: None)


def test_frames_of_several_cameras_are_taken_together(checkpoint, monkeypatch):
    engine = StreamingEngine.from_checkpoint(checkpoint)
    monkeypatch.setattr(engine._runner, 'pictures_at_once', 2)
    batches, together = [], engine.ingest_together
    gate, taken = threading.Event(), queue.Queue()

    def record(frames):
        batches.append([frame.stamp for frame in frames])
        together(frames)

    monkeypatch.setattr(engine, 'ingest_together', record)
    refused = []
    scheduler = Scheduler(
        engine, on_frame=taken.put, on_frame_error=lambda memory, error: refused.append(memory)
    )
    memories = [engine.new_memory() for _ in range(4)]
    scheduler.call(gate.wait)  # until all frames wait
    for i, memory in enumerate(memories):
        pixels = np.zeros((20, 20, 3 if i != 2 else 1), np.uint8)
        scheduler.offer(memory, pixels, i)
    gate.set()
    assert {taken.get(timeout=10) for _ in range(3)} == set(memories) - {memories[2]}
    scheduler.close()
    # A bad frame is refused and its companion taken.
    assert batches == [[0, 1], [3]]
    assert refused == [memories[2]]


def test_a_schema_that_is_given_up_on_is_its_questions_fault_alone(engine):
    failures = []
    stream = Stream(engine, on_failure=failures.append)
    stream.take()
    again = {'type': 'object', 'properties': {'a': {'$ref': '#/$defs/a'}}, 'required': ['a']}
    schema = json.dumps({'$ref': '#/$defs/a', '$defs': {'a': again}})
    _, done = stream.ask(sampling=Sampling(max_tokens=500, json_schema=schema))
    outcome = done.get(timeout=30)
    assert not outcome.success
    assert 'llguidance' in outcome.message
    assert stream.ask(sampling=Sampling(max_tokens=3))[1].get(timeout=10).success
    stream.scheduler.close()
    assert not failures
