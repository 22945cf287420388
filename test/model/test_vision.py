"""The vision tower against transformers' own, and the way from a picture to patches."""

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
)

from infinitevl_ros.model import vision
from infinitevl_ros.model.checkpoint import load_checkpoint
from infinitevl_ros.model.config import VisionConfig


@pytest.fixture(scope='module')
def towers(golden):
    """Our weights, and transformers' tower with the same."""
    weights = load_checkpoint(golden / 'tiny')
    c = weights.config.vision
    config = Qwen2_5_VLVisionConfig(
        depth=c.depth,
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_heads=c.num_heads,
        patch_size=c.patch_size,
        temporal_patch_size=c.temporal_patch_size,
        spatial_merge_size=c.spatial_merge_size,
        window_size=c.window_size,
        fullatt_block_indexes=list(c.fullatt_block_indexes),
        out_hidden_size=c.out_hidden_size,
    )
    reference = Qwen2_5_VisionTransformerPretrainedModel(config).float().eval()
    tensors = load_file(golden / 'tiny' / 'model.safetensors')
    prefix = 'visual.'
    own = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
    reference.load_state_dict(own)
    return weights, reference


# Whole windows, edge windows on one side or both, a single token, and one row of them.
@pytest.mark.parametrize('grid', [(8, 8), (16, 24), (12, 12), (10, 16), (2, 2), (2, 18), (18, 6)])
def test_tower_is_transformers_tower(towers, grid):
    weights, reference = towers
    torch.manual_seed(0)
    patches = torch.randn(2, grid[0] * grid[1], weights.config.vision.patch_values)
    with torch.no_grad():
        wanted = reference(patches.flatten(0, 1), torch.tensor([[1, *grid]] * 2))
    wanted = getattr(wanted, 'pooler_output', wanted)
    found = vision.encode(weights, patches, grid)
    torch.testing.assert_close(found.flatten(0, 1), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize('side', [168, 448])
def test_resize_is_pillows_bicubic(golden, side):
    expected = load_file(golden / 'preprocess.safetensors')
    found = vision.resize(expected['frame_rgb'], (side, side))
    assert found.dtype == torch.uint8
    difference = (found.int() - expected[f'resized_{side}'].int()).abs()
    assert difference.max() <= 1


@pytest.mark.parametrize('side', [168, 448])
def test_pixel_values_are_the_reference_processors(golden, side):
    expected = load_file(golden / 'preprocess.safetensors')
    frame = vision.resize(expected['frame_rgb'], (side, side))
    found = vision.patchify(frame, VisionConfig(), torch.float32)
    name = next(name for name in expected if name.startswith(f'pixel_values_{side}'))
    wanted = expected[name]
    assert found.shape == ((side // 14) ** 2, 1176)
    torch.testing.assert_close(found[: len(wanted)], wanted, atol=2e-2, rtol=0)


def test_a_frame_of_the_right_size_is_left_alone():
    frame = torch.randint(0, 256, (56, 84, 3), dtype=torch.uint8)
    assert vision.resize(frame, (56, 84)) is frame
