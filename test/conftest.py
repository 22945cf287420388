"""What all tests share: a ROS domain of their own, the golden vectors, a small model."""

import os
import random
import sys
from pathlib import Path

# Before rclpy is imported: no other run on this machine or network hears these tests.
os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randrange(1, 102))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

# training/ and bench/ are not installed. Last, so that what is built comes before its sources.
sys.path.append(str(Path(__file__).parents[1]))

import pytest
import torch
from safetensors.torch import load_file, save_file

from infinitevl_ros.cli.random_checkpoint import write_random_checkpoint
from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.model.checkpoint import load_config

# Tests that need a GPU are not part of the suite where there is none.
collect_ignore = [] if torch.cuda.is_available() else ['gpu']

GOLDEN = Path(os.environ.get('INFINITEVL_GOLDEN', Path(__file__).parent / 'data' / 'golden'))


@pytest.fixture(scope='session')
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory) -> Path:
    """A small random checkpoint with everything a published one has, whose answers never end.

    (Its score of <|im_end|> is always zero, and some other token's is above.)
    """
    folder = write_random_checkpoint(tmp_path_factory.mktemp('model') / 'random', seed=1)
    tensors = load_file(folder / 'model.safetensors')
    (end,) = load_config(folder).eos_token_ids
    tensors['model.embed_tokens.weight'][end] = 0
    save_file(tensors, folder / 'model.safetensors')
    return folder


@pytest.fixture(scope='session')
def engine(checkpoint) -> StreamingEngine:
    return StreamingEngine.from_checkpoint(checkpoint)
