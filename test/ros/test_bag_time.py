"""A bag's time is its stamps': however fast it is played, and whatever /clock does meanwhile."""

import time

import numpy as np
import pytest
import torch
from conftest import SECOND, Client, HostedNode, counts, end_participants, until
from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock

from infinitevl_ros.engine import Snapshot
from infinitevl_ros.ros import stamps

BEGIN = 10 * SECOND
FRAMES = [BEGIN + SECOND // 10 * number for number in range(1, 26)]


class Player:
    """The time in a bag that is played at `speed`, from `start` on; it stands at BEGIN before."""

    def __init__(self, speed):
        self._speed, self._began = speed, None

    def start(self):
        self._began = time.monotonic()

    @property
    def now(self):
        wall = 0 if self._began is None else time.monotonic() - self._began
        return BEGIN + int(self._speed * wall * SECOND)

    def tell(self, client, node):
        """Publish /clock, a hundred times a second; returns when `node` goes by it."""
        publisher = client.node.create_publisher(Clock, '/clock', 10)
        client.node.create_timer(
            0.01, lambda: publisher.publish(Clock(clock=stamps.message(self.now)))
        )
        assert until(lambda: node.get_clock().now().nanoseconds == BEGIN)


def played(checkpoint, folder, speed, simulated):
    """The captions and the saved memory of a bag; `simulated`: with /clock and use_sim_time."""
    parameters = {'caption_period': 0.5, 'max_tokens': 4, 'memory_dir': str(folder)}
    hosted = HostedNode(model=str(checkpoint), use_sim_time=simulated, **parameters)
    node, client, player = hosted.node, Client(), Player(speed)
    try:
        client.wait_ready()
        if simulated:
            player.tell(client, node)
        player.start()
        random = np.random.default_rng(5)
        for number, stamp in enumerate(FRAMES, start=1):
            assert until(lambda stamp=stamp: player.now >= stamp)
            client.publish(client.image(random.integers(0, 256, (60, 80, 3), np.uint8), stamp))
            assert until(lambda n=number: counts(node).taken == n)
            # The node leaves a caption out while the one before is in the making.
            assert until(lambda: not node.scheduler._captions)
        if simulated:
            assert until(lambda: FRAMES[-1] <= node.get_clock().now().nanoseconds <= player.now)
        assert until(lambda: len(client.captions) == 4), client.captions
        assert client.save('end').success
    finally:
        hosted.stop()
        client.close()
    captions = [(c.text, c.first_stamp, c.last_stamp) for c in client.captions]
    hosted = node = client = None
    end_participants()
    return captions, Snapshot.read(folder / 'end.safetensors')


@pytest.fixture(scope='module')
def usual(checkpoint, tmp_path_factory):
    """What the node makes of the bag as fast as frames are taken, by the wall's clock."""
    return played(checkpoint, tmp_path_factory.mktemp('usual'), 10.0, simulated=False)


@pytest.mark.parametrize(
    ('speed', 'simulated'),
    [(1.0, False), (1.0, True), (4.0, True)],
    ids=['stamps_alone', 'clock', 'fast_clock'],
)
def test_however_a_bag_is_played_captions_and_memory_are_the_same(
    checkpoint, tmp_path, usual, speed, simulated
):
    captions, memory = played(checkpoint, tmp_path, speed, simulated)
    assert captions == usual[0]
    assert [stamp.nanosec for _, _, stamp in captions] == [600_000_000, 100_000_000] * 2
    assert memory.metadata == usual[1].metadata
    assert memory.metadata['frames'] == str(len(FRAMES))
    assert memory.tensors.keys() == usual[1].tensors.keys()
    for name, tensor in usual[1].tensors.items():
        assert torch.equal(memory.tensors[name], tensor), name


def test_a_clock_that_stands_still_holds_nothing_up(host, connect):
    """As when a bag is paused: captions go by stamps and diagnostics by the wall."""
    node = host(use_sim_time=True, caption_period=0.5, max_tokens=4)
    client = connect()
    for i in range(12):
        client.publish(client.image(stamp=10 * SECOND + i * SECOND // 10))
        time.sleep(0.03)
    assert until(lambda: len(client.captions) == 2)
    assert [c.last_stamp.nanosec for c in client.captions] == [500_000_000, 0]
    assert node.get_clock().now().nanoseconds == 0
    before = len(client.statuses)
    assert until(lambda: len(client.statuses) > before + 1)
    assert client.ask('What?').success


def test_a_fast_clock_dates_what_has_no_stamp_and_hurries_no_diagnostics(host, connect):
    node = host(use_sim_time=True, caption_period=0.0, max_tokens=4)
    client, player, came = connect(), Player(8.0), []
    player.tell(client, node)
    player.start()
    client.node.create_subscription(
        DiagnosticArray,
        '/diagnostics',
        lambda array: came.append((time.monotonic(), stamps.nanoseconds(array.header.stamp))),
        10,
    )
    assert until(lambda: len(came) > 10)
    (first, first_stamp), (last, last_stamp) = came[0], came[10]
    # `host` makes it 0.1 s: by this clock that would be 0.0125 s.
    assert 0.05 < (last - first) / 10 < 0.2
    # Eight times as much by the stamps, within what a busy machine brings late.
    assert 4 < (last_stamp - first_stamp) / SECOND / (last - first) < 16
    before = node.get_clock().now().nanoseconds
    client.publish(client.image(stamp=0))
    client.wait_value('frames_taken', lambda taken: taken == 1)
    assert before <= stamps.nanoseconds(client.ask('When?').last_stamp) <= player.now
