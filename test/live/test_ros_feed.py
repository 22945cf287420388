"""A feed of a running node with two cameras: which one, and questions that do not end well."""

import asyncio
import threading
import time

import pytest
from processes import camera_command, node_command, started

from infinitevl_ros.live.feed import Board
from infinitevl_ros.live.ros_feed import RosFeed

TIMEOUT = 20.0


@pytest.fixture(scope='module')
def board():
    """A board on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def make():
        return Board(loop)

    yield asyncio.run_coroutine_threadsafe(make(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def attach(board):
    """Make feeds that are closed when the test ends."""
    feeds = []

    def attach(*arguments):
        feeds.append(RosFeed(*arguments))
        feeds[-1].start(board)
        return feeds[-1]

    yield attach
    for feed in feeds:
        feed.close()


def until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Question:
    """A question under way; `reply` comes when it has ended."""

    def __init__(self, feed):
        self.pieces, self.reply, self.replies = [], None, 0
        self.cancel = feed.ask('What do you see?', self.pieces.append, self._on_done)

    def _on_done(self, reply):
        self.reply, self.replies = reply, self.replies + 1


def test_which_camera_and_how_questions_end(attach, board, checkpoint):
    # Its answers go on for a long time.
    node = node_command(
        model=checkpoint,
        cameras='[front, rear]',
        **{'front.topic': 'image', 'max_tokens': 4096, 'query_timeout': 600.0},
    )
    front, none, wrong = (attach('infinitevl_node', name) for name in ('front', '', 'left'))
    with pytest.raises(ValueError, match='no node at /infinitevl_node'):
        Question(front)
    with started(*node) as process, started(*camera_command(subscribers=2)):
        until(lambda: (front.state().frames or 0) > 10)
        until(lambda: board.pictures > 2)
        state = front.state()
        assert (state.message, state.level, state.model) == ('streaming', 'ok', checkpoint.name)
        assert state.answer_seconds is None
        until(lambda: (front.state().frames_per_second or 0) > 5)
        for feed in (none, wrong):
            state = feed.state()
            assert state.level == 'error'
            assert '--camera' in state.message
            assert state.message.endswith('has front, rear')
        for feed, words in ((none, 'one of front, rear'), (wrong, 'camera is "left"')):
            refused = Question(feed)
            assert words in until(lambda refused=refused: refused.reply).message

        cancelled = Question(front)
        until(lambda: cancelled.pieces)
        cancelled.cancel()
        assert until(lambda: cancelled.reply).message == 'cancelled'
        at_once = Question(front)
        at_once.cancel()
        assert until(lambda: at_once.reply).message == 'cancelled'
        cancelled.cancel()  # it has ended: nothing happens

        cut_off = Question(front)
        until(lambda: cut_off.pieces)
        process.kill()
        assert until(lambda: cut_off.reply).message == 'the node /infinitevl_node is gone'
        until(lambda: front.state().message == 'no node at /infinitevl_node')
    assert [question.replies for question in (cancelled, at_once, cut_off)] == [1, 1, 1]
