"""A stream through the engine: what is asked when, and the same words each time."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infinitevl_ros.engine import Options, Sampling, StreamingEngine
from infinitevl_ros.engine.loading import load_engine
from infinitevl_ros.media.source import Shot, Source
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.replay.questions import Expectation, Question
from infinitevl_ros.replay.record import Answered, Record, one_line, printable
from infinitevl_ros.replay.run import Captioning, Interrupted, Listener, run
from infinitevl_ros.replay.score import passes, score, table
from infinitevl_ros.world.patrol import story

SECOND = 1_000_000_000


class Patrol(Source):
    """A rendered patrol, ten frames a second."""

    kind = 'video'

    def __init__(self, frames=60, start=50 * SECOND):
        super().__init__(Path('patrol'))
        self.expected, self._start = frames, start

    def _shots(self):
        for number, (pixels, _) in enumerate(
            story(seed=2**32 + 7, frames=self.expected, size=112)
        ):
            yield Shot(self._start + number * SECOND // 10, pixels)


@pytest.fixture(scope='module')
def engine():
    return load_engine(default_checkpoint())


def test_questions_come_at_their_times_and_captions_at_theirs(engine):
    heard = []
    record = run(
        engine,
        Patrol(),
        [Question('Which room is this?'), Question('Is the light on?', at=2.35)],
        Captioning(1.5),
        Listener(
            frame=lambda shot: heard.append(shot.stamp),
            piece=lambda question, text: heard.append((question.text, text)),
            caption=lambda said: heard.append(said),
            answer=lambda answered: heard.append(answered),
        ),
    )
    assert len(record.frames) == 60
    assert {frame.memory_bytes for frame in record.frames} == {record.frames[0].memory_bytes}
    assert [a.question for a in record.answers] == ['Is the light on?', 'Which room is this?']
    assert [a.at for a in record.answers] == [2.4, 5.9]
    assert [a.frames for a in record.answers] == [25, 60]
    assert record.answers[0].stamp == 50 * SECOND + 2_400_000_000
    assert [said.stamp - 50 * SECOND for said in record.captions] == [
        1_500_000_000,
        3_000_000_000,
        4_500_000_000,
    ]
    assert [said.first_stamp - 50 * SECOND for said in record.captions] == [
        0,
        1_500_000_000,
        3_000_000_000,
    ]
    assert heard[-1] == record.answers[-1]
    said = [entry[1] for entry in heard if isinstance(entry, tuple) and entry[0].startswith('Is')]
    assert ''.join(said) == record.answers[0].text


def test_a_time_between_two_nanoseconds_is_that_of_its_frame(engine):
    class Thirds(Patrol):
        def _shots(self):
            for number, shot in enumerate(super()._shots()):
                yield Shot(number * SECOND // 15, shot.pixels)

    record = run(
        engine, Thirds(6), [Question('Is the light on?', at=number / 15) for number in (5, 2)]
    )
    assert [answer.frames for answer in record.answers] == [3, 6]
    assert not record.warnings


def test_stamps_that_jump_all_the_time_are_told_of_once(engine):
    class Two(Patrol):
        def _shots(self):
            for number, shot in enumerate(super()._shots()):
                yield Shot(shot.stamp + number % 2 * 7200 * SECOND, shot.pixels)

    warnings = run(engine, Two(20)).warnings
    assert len(warnings) == 2
    assert warnings[0].endswith('which counts as no time; 9 more do so')


def test_frames_that_a_camera_would_have_lost_are_counted(engine):
    class Fast(Patrol):
        """A millisecond from frame to frame, which no engine keeps up with."""

        def _shots(self):
            for number, shot in enumerate(super()._shots()):
                yield Shot(number * SECOND // 1000, shot.pixels)

    assert run(engine, Patrol(10)).dropped_live == 0
    record = run(engine, Fast(10))
    assert len(record.frames) == 10
    assert record.dropped_live > 0


def test_the_words_are_those_of_the_engine(engine):
    record = run(engine, Patrol(20), [Question('Which room is this?')], Captioning(1.0))
    memory = engine.new_memory()
    for number, shot in enumerate(Patrol(20)):
        engine.ingest(memory, shot.pixels, shot.stamp)
        if number == 10:
            caption = ''.join(engine.caption(memory, sampling=Sampling(max_tokens=64)))
    assert record.captions[0].text == caption
    assert record.answers[0].text == ''.join(engine.ask(memory, 'Which room is this?'))


def test_a_question_behind_the_end_is_asked_there_and_told_of(engine):
    record = run(engine, Patrol(10), [Question('Which room is this?', at=60)])
    assert record.answers[0].at == 0.9
    assert 'asked at 60 s, but the stream ends at 0.9 s' in record.warnings[0]


def test_a_stream_without_a_frame(engine):
    class Nothing(Patrol):
        def _shots(self):
            self.warnings.append('all of it is broken')
            yield from ()

    with pytest.raises(ValueError, match='no frame could be read: all of it is broken'):
        run(engine, Nothing(), [Question('What?')])


class Jumping(Patrol):
    """Two seconds of frames, and then two more at another time."""

    def __init__(self, second):
        super().__init__(40)
        self._second = second

    def _shots(self):
        for number, shot in enumerate(super()._shots()):
            begin = self._second if number >= 20 else 50 * SECOND
            yield Shot(begin + number % 20 * SECOND // 10, shot.pixels)


@pytest.mark.parametrize(
    ('second', 'said', 'spans', 'times'),
    [
        (10, 'back by 41.9 s', [(50, 51), (10, 11)], [(0, 1), (1.9, 2.9)]),
        # A Schedule knows of no longest gap: a caption is due at once.
        (9000, 'ahead by 8948.1 s', [(50, 51), (51, 9000)], [(0, 1), (1, 1.9)]),
    ],
)
def test_a_jump_of_the_clock_is_no_time(engine, second, said, spans, times):
    asked = [Question('Is the light on?', at=at) for at in (1.0, 2.5)]
    record = run(engine, Jumping(second * SECOND), asked, Captioning(1.0))
    assert [answer.frames for answer in record.answers] == [11, 27]
    assert record.warnings == [f'frame 21: stamps jump {said}, which counts as no time']
    first = record.captions[:2]
    assert [(one.first_stamp / SECOND, one.stamp / SECOND) for one in first] == spans
    assert [(one.first_at, one.at) for one in first] == times


@pytest.mark.parametrize(
    ('question', 'said'),
    [
        (Question(' '), 'the question is empty'),
        (Question('What? ' * 9999), 'What.* characters long, at most'),
        (Question('How many?', sampling=Sampling(json_schema='{"not": {}}')), 'json_schema'),
    ],
)
def test_a_question_that_cannot_be_asked_is_told_of_at_the_first_frame(engine, question, said):
    frames = []
    with pytest.raises(ValueError, match=said):
        run(engine, Patrol(), [question], listener=Listener(frame=frames.append))
    assert len(frames) == 1


def test_with_two_frames_a_grid_the_first_question_waits_for_the_second():
    engine = StreamingEngine.from_checkpoint(
        default_checkpoint(), options=Options(frames_per_grid=2)
    )
    record = run(engine, Patrol(4), [Question('Is the light on?', at=0)])
    assert [answer.frames for answer in record.answers] == [2]


def test_an_interrupted_run_keeps_what_there_was(engine):
    def stop(shot):
        if shot.stamp >= 51 * SECOND:
            raise KeyboardInterrupt

    asked = [Question('Is the light on?', at=0.5), Question('Which room is this?')]
    with pytest.raises(Interrupted) as caught:
        run(engine, Patrol(), asked, listener=Listener(frame=stop))
    assert [answer.question for answer in caught.value.record.answers] == ['Is the light on?']
    assert len(caught.value.record.frames) == 11


def answered(right, text='yes', finish='end'):
    return Answered('Is it?', 0.0, 0, text, 1, 0.1, 0.1, 1, finish, 'yes', right)


def record_of(*answers):
    return Record('a.mp4', 'video', '', 'tiny', 'cpu', '', {}, answers=list(answers))


def test_a_threshold_means_what_is_written():
    """55 of 100 is 0.55, though 0.55 * 100 is more than 55 in floating point."""
    for right in range(1, 100):
        record = record_of(*(answered(i < right) for i in range(100)))
        assert passes(record, float(f'0.{right:02}'))
        assert not passes(record, float(f'0.{right:02}1'))


def test_what_a_model_says_cannot_steer_a_terminal():
    text = 'a\x1b[2J\x9b31m\u202eb\nc'
    assert printable(text) == 'a [2J 31m b\nc'
    assert one_line(text) == 'a [2J 31m b c'
    assert '\x1b' not in table(record_of(answered(True, text)))


def test_a_long_answer_goes_on_below():
    lines = table(record_of(answered(False, 'a red ball and ' * 20, 'length'))).splitlines()
    assert max(map(len, lines)) < 100
    assert ' '.join(lines).count('ball') == 20
    assert lines[-2].endswith('...')


def test_a_score_and_its_table(engine):
    right, wrong = Expectation('any', ('yes', 'no')), Expectation('exact', ('a zebra',))
    asked = [Question('Is the light on?', expected=e) for e in (right, wrong, None)]
    record = run(engine, Patrol(5), asked)
    assert score(record) == (1, 2)
    assert passes(record, 0.5)
    assert not passes(record, 0.51)
    lines = table(record).splitlines()
    assert lines[1].split()[2] == 'right'
    assert lines[2].split()[2] == 'WRONG'
    assert lines[2].endswith('a zebra')
    assert lines[-1] == '1 of 2 right'
    assert not passes(run(engine, Patrol(5), asked[2:]), 0.0), 'nothing was checked'


def test_the_same_stream_gives_the_same_words_in_every_process(engine):
    """Bit for bit on a CPU: texts, stamps and the memory.

    This process too says the same, but other tests may have set how its torch adds.
    """
    code = (
        'import json, sys; sys.path.insert(0, sys.argv[1]); import test_run as t; '
        'e = t.load_engine(t.default_checkpoint()); '
        'print(json.dumps(t.words(e)))'
    )
    command = [sys.executable, '-c', code, str(Path(__file__).parent)]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, timeout=100) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert json.loads(first.stdout)[0] == words(engine)[0]


def words(engine):
    asked = [Question('Which room is this?', at=i / 2) for i in range(6)]
    record = run(engine, Patrol(40), asked, Captioning(1.0))
    memory = engine.new_memory()
    for shot in Patrol(40):
        engine.ingest(memory, shot.pixels, shot.stamp)
    sums = [float(np.abs(t.numpy()).sum(dtype=np.float64)) for t in memory.state.tensors.values()]
    return [[[a.text, a.stamp] for a in (*record.answers, *record.captions)], sums]
