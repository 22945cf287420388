"""The node and a replay on a GPU: what is given back, and whether words come again."""

import gc
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from infinitevl_ros.engine.loading import load_engine
from infinitevl_ros.media.source import Shot, Source
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.replay.questions import Question
from infinitevl_ros.replay.run import Captioning, run
from infinitevl_ros.world.patrol import story

SECOND = 1_000_000_000


class Patrol(Source):
    """A rendered patrol of a minute, ten frames a second."""

    kind = 'video'

    def __init__(self):
        super().__init__(Path('patrol'))

    def _shots(self):
        for number, (pixels, _) in enumerate(story(seed=2**32 + 7, frames=600, size=112)):
            yield Shot(number * SECOND // 10, pixels)


def words(device):
    engine = load_engine(default_checkpoint(), device)
    asked = itertools.cycle(('Which room is this?', 'What do you see?', 'Where is the ball?'))
    questions = [Question(next(asked), at) for at in range(1, 60)]
    record = run(engine, Patrol(), questions, Captioning(2.0))
    return [said.text for said in (*record.captions, *record.answers)]


def test_a_replay_says_the_same_again():
    """Bit for bit on the same GPU; in bfloat16 nearly what a CPU says in float32."""
    found = words('cuda')
    assert len(found) > 80
    assert words('cuda') == found
    reference = words('cpu')
    same = sum(one == other for one, other in zip(found, reference, strict=True))
    print(f'as on a CPU: {same} of {len(found)}')
    assert same >= 0.9 * len(found)


def test_cleanup_gives_the_gpu_back(checkpoint):
    rclpy = pytest.importorskip('rclpy', reason='needs rclpy beside CUDA')
    from rclpy.parameter import Parameter

    from infinitevl_ros.ros.node import InfiniteVLNode

    context = rclpy.Context()
    rclpy.init(context=context)
    values = {'model': str(checkpoint), 'device': 'cuda', 'autostart': False}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = InfiniteVLNode(context=context, parameter_overrides=overrides)
    held = []
    try:
        for _ in range(3):
            assert node.transition('configure')
            assert node.transition('activate')
            assert torch.cuda.memory_allocated() >= node.engine.weight_bytes
            camera = node.cameras[0]
            node.scheduler.offer(camera.memory, np.zeros((480, 640, 3), np.uint8), SECOND)
            deadline = time.monotonic() + 60
            while not node.scheduler.counts(camera.memory).taken:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert node.transition('deactivate')
            del camera
            assert node.transition('cleanup')
            gc.collect()
            held.append(torch.cuda.memory_allocated())
    finally:
        node.close()
        rclpy.try_shutdown(context=context)
    # Libraries keep their workspaces from the first time on; a second model is not kept.
    assert held[1] == held[2]
    assert held[2] < 2**27
