"""What all tests share: a ROS domain of their own, the golden vectors, a small model."""

import os
import random
from pathlib import Path

# Before rclpy is imported: no other run on this machine or network hears these tests.
os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randrange(1, 102))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

import pytest

from infinitevl_ros.cli.random_checkpoint import write_random_checkpoint
from infinitevl_ros.engine import StreamingEngine

GOLDEN = Path(os.environ.get('INFINITEVL_GOLDEN', Path(__file__).parent / 'data' / 'golden'))


@pytest.fixture(scope='session')
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory) -> Path:
    """A small random checkpoint with everything a published one has."""
    return write_random_checkpoint(tmp_path_factory.mktemp('model') / 'random', seed=1)


@pytest.fixture(scope='session')
def engine(checkpoint) -> StreamingEngine:
    return StreamingEngine.from_checkpoint(checkpoint)
