"""Whose question comes next, and who finds a place in a queue that is full."""

import queue
import time

import pytest
from streaming import LONG, Stream

from infinitevl_ros.engine import QueueFullError, Sampling


@pytest.fixture
def places():
    return 9


@pytest.fixture
def stream(engine, places):
    stream = Stream(engine, max_questions=places)
    yield stream
    stream.scheduler.close()
    assert len(engine._free) == 2


def asked_in_order(stream, questions, client=None):
    """A queue of the questions in the order in which they end, and how they do.

    All are asked while a long answer to the client 'a' is under way. `client` tells whose a
    question is.
    """
    order = queue.Queue()
    first, _ = stream.ask(sampling=LONG, client='a')
    while not stream.scheduler._questions.answer:
        time.sleep(0.001)
    for question in questions:
        stream.scheduler.ask(
            stream.memory,
            question,
            lambda outcome, question=question: order.put((question, outcome.message)),
            sampling=Sampling(max_tokens=3),
            client=client(question) if client else '',
        )
    return first, order


def test_questions_are_answered_in_their_order(stream):
    stream.take()
    first, order = asked_in_order(stream, ['x', 'y'])
    first.cancel()
    assert [order.get(timeout=10) for _ in range(2)] == [('x', ''), ('y', '')]


def test_clients_take_turns(stream):
    stream.take()
    questions = ['a1', 'a2', 'a3', 'b1', 'b2', 'c1']
    first, order = asked_in_order(stream, questions, client=lambda question: question[0])
    first.cancel()
    # Client a has had its turn already.
    expected = ['b1', 'c1', 'a1', 'b2', 'a2', 'a3']
    assert [order.get(timeout=10)[0] for _ in expected] == expected


def test_who_asks_without_pause_leaves_a_turn_to_others(stream):
    """All ask again as soon as they are answered; one has two questions open."""
    stream.take()
    order = queue.Queue()

    def ask(client):
        def answered(outcome):
            order.put(client)
            if outcome.success and order.qsize() < 12:
                ask(client)

        options = {'sampling': Sampling(max_tokens=2), 'client': client}
        stream.scheduler.ask(stream.memory, 'what?', answered, **options)

    first, _ = stream.ask(sampling=LONG, client='a')
    for client in ('b', 'c', 'a', 'a'):
        ask(client)
    first.cancel()
    said = [order.get(timeout=10) for _ in range(9)]
    assert [said.count(client) for client in 'abc'] == [3, 3, 3]


@pytest.mark.parametrize('places', [3])
def test_a_full_queue_makes_room_for_a_client_that_has_less(stream):
    stream.take()
    first, order = asked_in_order(stream, ['a1', 'a2', 'b1'], client=lambda question: question[0])
    assert order.get(timeout=10) == ('a2', 'busy: its place went to a client that has fewer')
    for client in 'ab':  # b would have as many as a
        with pytest.raises(QueueFullError, match='3 questions are waiting'):
            stream.ask(client=client)
    first.cancel()
    assert [order.get(timeout=10) for _ in range(2)] == [('b1', ''), ('a1', '')]
