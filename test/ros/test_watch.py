"""Standing questions, with the small trained model: a lamp that goes on and off, a person."""

import time

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from conftest import SECOND, counts, until

from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.ros.watches import VERDICT
from infinitevl_ros.world.paint import Painter
from infinitevl_ros.world.scene import Camera as Place
from infinitevl_ros.world.scene import Moment, Room

LIGHT = 'Is the light on?'


class Lamp:
    """A camera in a room whose lamp is switched; two frames a second of stream time."""

    def __init__(self, node, client):
        self._node, self._client = node, client
        self._painter = Painter(Room('kitchen', 12, ()), 112)
        self._random, self.number = np.random.default_rng(0), 0
        self.shown = 0

    def show(self, light, frames=1):
        for _ in range(frames):
            moment = Moment(Place(0, 0.8, 0), light=light)
            pixels = self._painter.picture(moment, self._random)
            self.number += 1
            stamp = 10 * SECOND + self.number * SECOND // 2
            self._client.publish(self._client.image(pixels, stamp=stamp))
            self.shown += 1
            assert until(lambda: counts(self._node).taken == self.shown)
            # What was begun with this frame has its answer before the next.
            assert until(lambda: not self._node.scheduler._checks.tickets)


@pytest.fixture
def lamp(host, connect):
    node = host(model=str(default_checkpoint()), caption_period=0.0, max_watches=2)
    client = connect()
    return Lamp(node, client), client


def watch(client, condition=LIGHT, **fields):
    """A watch whose feedback arrives: the node finds this subscription a little after the goal."""
    handle, feedback = client.start_watch(condition, **fields)
    time.sleep(0.5)
    return handle, feedback


def result(client, handle):
    reply = client.wait(handle.get_result_async())
    return reply.status, reply.result


def test_feedback_comes_when_the_answer_changes(lamp):
    lamp, client = lamp
    handle, feedback = watch(client, period=1.0)
    lamp.show(light=True, frames=6)
    assert until(lambda: len(feedback) == 1)
    assert (feedback[0].holds, feedback[0].answer, feedback[0].checks) == (True, 'yes', 1)
    assert (feedback[0].stamp.sec, feedback[0].stamp.nanosec) == (10, SECOND // 2)
    lamp.show(light=False, frames=6)
    assert until(lambda: len(feedback) == 2)
    assert (feedback[1].holds, feedback[1].answer) == (False, 'no')
    client.wait(handle.cancel_goal_async())
    status, end = result(client, handle)
    assert status == GoalStatus.STATUS_CANCELED
    assert (end.success, end.message, end.holds) == (False, 'cancelled', False)
    # Twelve frames, two a second, a check a second.
    assert (end.checks, end.changes) == (6, 2)


def test_debounce_waits_for_checks_that_agree(lamp):
    lamp, client = lamp
    handle, feedback = watch(client, period=0.5, debounce=3)
    lamp.show(light=True, frames=4)
    lamp.show(light=False, frames=2)
    lamp.show(light=True, frames=4)
    lamp.show(light=False, frames=3)
    assert until(lambda: len(feedback) == 2)
    assert [message.holds for message in feedback] == [True, False]
    assert [message.checks for message in feedback] == [3, 13]
    client.wait(handle.cancel_goal_async())


def test_once_ends_when_it_holds_and_a_duration_when_it_is_over(lamp):
    lamp, client = lamp
    once, _ = watch(client, period=0.5, once=True)
    timed, _ = watch(client, period=1.0, duration=3.0)
    third, _ = client.start_watch(LIGHT)
    assert result(client, third)[1].message == 'busy: 2 watches are standing already (max_watches)'
    lamp.show(light=False, frames=3)
    lamp.show(light=True, frames=2)
    status, end = result(client, once)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (end.success, end.message, end.holds, end.changes) == (True, 'it holds', True, 2)
    lamp.show(light=True, frames=2)
    status, end = result(client, timed)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (end.success, end.message, end.checks) == (True, 'its duration is over', 3)


def test_answers_that_are_neither_yes_nor_no_change_nothing(lamp, capfd):
    lamp, client = lamp
    handle, feedback = watch(client, 'Which room is this?', period=0.5)
    lamp.show(light=True, frames=3)
    client.wait(handle.cancel_goal_async())
    assert result(client, handle)[1].checks == 0
    assert not feedback
    assert 'was not answered by yes or no' in capfd.readouterr().err


@pytest.mark.parametrize(
    ('condition', 'fields', 'said'),
    [
        (' ', {}, 'the condition is empty'),
        (LIGHT, {'period': 0.0}, 'period is 0.0'),
        (LIGHT, {'period': -1.0}, 'period is -1.0'),
        (LIGHT, {'period': 1e-12}, 'period is 1e-12, expected the seconds of stream time between'),
        (LIGHT, {'period': 1e300}, 'period is 1e+300'),
        (LIGHT, {'duration': float('nan')}, 'duration is nan'),
        (LIGHT, {'duration': 1e300}, 'duration is 1e+300'),
        (LIGHT, {'camera': 'top'}, 'camera is "top", expected one without a name'),
    ],
)
def test_what_cannot_be_watched_is_aborted_with_a_reason(lamp, condition, fields, said):
    _, client = lamp
    handle, _ = client.start_watch(condition, **fields)
    status, end = result(client, handle)
    assert status == GoalStatus.STATUS_ABORTED
    assert said in end.message


@pytest.mark.parametrize(
    ('text', 'verdict'),
    [
        ('yes', 'yes'),
        (' Yes, there is.', 'yes'),
        ('**No**', 'no'),
        ('NO', 'no'),
        ('nobody', None),
        ('not sure', None),
        ('', None),
        ('I say yes', None),
    ],
)
def test_only_an_answer_that_begins_with_yes_or_no_counts(text, verdict):
    found = VERDICT.match(text)
    assert (found and found[1].lower()) == verdict


def test_more_watches_than_questions_all_have_their_turn(host, connect):
    node = host(
        model=str(default_checkpoint()), caption_period=0.0, max_questions=1, max_watches=4
    )
    client = connect()
    handles = [client.start_watch(LIGHT, period=1.0)[0] for _ in range(4)]
    Lamp(node, client).show(True, 9)
    for handle in handles:
        client.wait(handle.cancel_goal_async())
        assert result(client, handle)[1].checks >= 3


def test_a_duration_ends_though_the_bag_begins_again(lamp):
    lamp, client = lamp
    handle, _ = watch(client, period=1.0, duration=6.0)
    for _ in range(3):
        lamp.show(True, 6)
        lamp.number -= 6  # its stamps begin again
    status, reply = result(client, handle)
    assert (status, reply.message) == (GoalStatus.STATUS_SUCCEEDED, 'its duration is over')
