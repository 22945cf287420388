"""Files of questions: what they may hold, and how mistakes in them are told."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinitevl_ros.replay.questions import Expectation, QuestionsError, load_questions


def written(tmp_path, text):
    path = tmp_path / 'q.yaml'
    path.write_text(text)
    return path


def test_everything_that_may_be_said(tmp_path):
    listed = load_questions(
        written(
            tmp_path,
            """
threshold: 0.75
questions:
  - ask: Which room is this?
    at: 12.5
    expect: kitchen
  - {ask: 'How many?', expect: 3, max_tokens: 5}
  - {ask: 'What?', expect: {any: [red, crimson]}}
  - {ask: 'What?', expect: {contains: ball}}
  - {ask: 'Is it?', expect: yes}
  - {ask: 'What?', expect: {regex: '^a (red|blue) ball$'}}
  - ask: Nothing in particular?
""",
        )
    )
    assert listed.threshold == 0.75
    first, second, *_, last = listed.questions
    assert (first.text, first.at, first.expected) == (
        'Which room is this?',
        12.5,
        Expectation('exact', ('kitchen',)),
    )
    assert (second.at, second.sampling.max_tokens, str(second.expected)) == (None, 5, '3')
    assert last.expected is None
    texts = [str(question.expected) for question in listed.questions[2:6]]
    assert texts == ['any of red, crimson', 'contains ball', 'yes', 'regex ^a (red|blue) ball$']


@pytest.mark.parametrize(
    ('kind', 'values', 'right', 'wrong'),
    [
        ('exact', ('A red ball',), ['a red ball', ' A  Red\nball. '], ['red ball', '']),
        ('any', ('red', 'crimson'), ['Red', 'crimson.'], ['red crimson', 'blue']),
        ('contains', ('red ball',), ['I see a Red  ball.'], ['a ball that is red']),
        ('regex', (r'\bred\b|crimson',), ['it is RED', 'crimson'], ['bored', '']),
    ],
)
def test_what_meets_an_expectation(kind, values, right, wrong):
    expectation = Expectation(kind, values)
    assert all(expectation.met_by(text) for text in right)
    assert not any(expectation.met_by(text) for text in wrong)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'line 1: expected "questions:"'),
        ('[1, 2]', 'line 1: expected "questions:"'),
        ('questions: 5', 'line 1: expected "questions:" with a list'),
        ('questions: []', 'line 1: expected "questions:" with a list of at least one'),
        ('questions:\n  - ask: a\n  - what: b', 'line 3: "what" is not known here, expected ask'),
        ('questions:\n  - ask: a\n    at: soon', "line 3: expected a number, found 'soon'"),
        ('questions:\n  - ask: a\n    at: -1', 'line 3: -1 is not a number from 0 on'),
        ('questions:\n  - ask: a\n    at: .nan', 'line 3: expected a number'),
        ('questions:\n  - ask: a\n    max_tokens: 0', 'line 3: max_tokens is 0'),
        ('questions:\n  - at: 3', 'line 2: a question without a text'),
        ('questions:\n  - ask: " "', 'line 2: a question without a text'),
        ('questions:\n  - just words', 'line 2: expected a question'),
        ('questions:\n  - ask: a\n    ask: b', 'line 3: "ask" a second time'),
        ('questions:\n  - ask: [a]', 'line 2: ask: expected a text'),
        ('questions:\n  - ask: a\n    expect: {}', 'line 3: expect takes one of exact, any'),
        ('questions:\n  - ask: a\n    expect: {is: b}', 'line 3: "is" is not known here'),
        ('questions:\n  - ask: a\n    expect: {regex: "("}', 'line 3: regex "\\("'),
        ('questions:\n  - ask: a\n    expect: ""', 'line 3: expect takes one of'),
        ('questions:\n  - ask: a\n    expect: {any: []}', 'line 3: expect takes one of'),
        ('questions:\n  - ask: a\nthreshold: 2', 'line 3: threshold is 2.0, expected 0 to 1'),
        ('questions:\n  - ask: "a', 'line 2'),
        ('questions:\n\t- ask: a', 'line 2'),
        ('questions:\n  - ask: a\n    at: 12:30', "line 3: expected a number, found '12:30'"),
        ('questions:\n  - ask: a\n  - ask: "\0"', 'line 3: special characters are not allowed'),
        ('questions:\n  - ask: a\n    expect:', 'line 3: expect takes one of'),
        ('questions: *a', 'line 1: found undefined alias'),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(QuestionsError, match=rf'q\.yaml, {said}'):
        load_questions(path)


def test_brackets_without_end(tmp_path):
    with pytest.raises(QuestionsError, match=r'q\.yaml: nested too deeply'):
        load_questions(written(tmp_path, '[' * 5000))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(QuestionsError, match='No such file'):
        load_questions(tmp_path / 'none.yaml')
    (tmp_path / 'q.yaml').write_bytes(b'\xff\xfe\xff')
    with pytest.raises(QuestionsError, match=r'q\.yaml'):
        load_questions(tmp_path / 'q.yaml')


@given(text=st.text(alphabet='questions: \n-ak{}[]"\'5.&*!|>', max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = written(tmp_path_factory.mktemp('any'), text)
    with contextlib.suppress(QuestionsError):
        load_questions(path)
