"""The plain network and the engine on a GPU, held to what they do on the CPU."""

import numpy as np
import pytest
import torch

from infinitevl_ros.cli.verify import TOLERANCE, compare
from infinitevl_ros.engine import Sampling, StreamingEngine

SECOND = 1_000_000_000


@pytest.mark.parametrize('chunk', [None, 1, 36, 253])
def test_golden_vectors(golden, chunk):
    quantities = compare(golden / 'tiny', chunk=chunk, device='cuda')
    assert [q for q in quantities if not q.within(TOLERANCE)] == []


def filled(engine):
    memory = engine.new_memory()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (480, 640, 3), np.uint8)
        engine.ingest(memory, pixels, i * SECOND // 10)
    return memory


def test_a_stream_is_the_same_on_both_devices(checkpoint):
    engines = [
        StreamingEngine.from_checkpoint(checkpoint, device, torch.float32)
        for device in ('cpu', 'cuda')
    ]
    memories = [filled(engine) for engine in engines]
    for name, wanted in memories[0].state.tensors.items():
        found = memories[1].state[name].cpu()
        if wanted.is_floating_point():
            assert (found - wanted).norm() <= 1e-3 * wanted.norm(), name
        else:
            assert torch.equal(found, wanted), name
    texts = {
        ''.join(engine.ask(memory, 'what do you see?', Sampling(max_tokens=12)))
        for engine, memory in zip(engines, memories, strict=True)
    }
    assert len(texts) == 1


def test_bfloat16_is_the_default_and_memories_travel(checkpoint, tmp_path):
    engine = StreamingEngine.from_checkpoint(checkpoint, 'cuda')
    assert engine.weights.dtype == torch.bfloat16
    memory = filled(engine)
    memory.save(tmp_path / 'memory')
    on_cpu = StreamingEngine.from_checkpoint(checkpoint, 'cpu', torch.bfloat16)
    other = on_cpu.new_memory()
    other.load(tmp_path / 'memory')
    assert other.frames == 40
    drawn = Sampling(max_tokens=10, temperature=1.0, top_p=0.9, seed=1)
    for answer in (engine.ask(memory, 'what?', drawn), on_cpu.ask(other, 'what?', drawn)):
        list(answer)
        assert answer.finish in ('length', 'end')
