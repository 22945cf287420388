"""Every Triton kernel against plain torch, at sizes of the golden network and of the 4B one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from infinitevl_ros.model import decoder, vision
from infinitevl_ros.model.checkpoint import load_checkpoint
from infinitevl_ros.model.config import VisionConfig
from infinitevl_ros.model.kernels import gpu, plain
from infinitevl_ros.model.kernels.gpu import pixels
from infinitevl_ros.model.kernels.gpu.linear import Unsummed
from infinitevl_ros.model.kernels.gpu.prepare import _widen, quantise_mlp
from infinitevl_ros.model.state import StreamState
from infinitevl_ros.model.weights import Attention, Block, Fp8, Mlp

# Relative norm of the difference that rounding alone explains.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def close(found, wanted, bound):
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    error = (found.double() - wanted.double()).norm() / wanted.double().norm()
    assert error < bound, float(error)


def normal(*shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(*shape, device='cuda') * scale).to(dtype)


@pytest.mark.parametrize('dtype', BOUNDS)
@pytest.mark.parametrize('tokens', [1, 3, 256])
@pytest.mark.parametrize(('width', 'inner'), [(64, 160), (2048, 11008), (1280, 3420)])
def test_norms_and_projections(tokens, width, inner, dtype):
    x, norm = normal(1, tokens, width, dtype=dtype), normal(width, dtype=dtype)
    bias, down_bias = normal(2 * inner, dtype=dtype), normal(width, dtype=dtype)
    mlp = Mlp(
        normal(2 * inner, width, dtype=dtype, scale=width**-0.5),
        normal(width, inner, dtype=dtype, scale=inner**-0.5),
    )
    bound = BOUNDS[dtype]
    close(gpu.rms_norm(x, norm, 1e-6), plain.rms_norm(x, norm, 1e-6), bound)
    for m in (mlp, replace(mlp, gate_up_bias=bias, down_bias=down_bias)):
        found = gpu.norm_linear(x, norm, 1e-6, m.gate_up, m.gate_up_bias)
        close(found, plain.norm_linear(x, norm, 1e-6, m.gate_up, m.gate_up_bias), bound)
        hidden = plain.norm_swiglu(x, norm, 1e-6, m)
        close(gpu.norm_swiglu(x, norm, 1e-6, m), hidden, bound)
        wanted = plain.linear_add(hidden, m.down, m.down_bias, x.float())
        close(gpu.linear_add(hidden, m.down, m.down_bias, x.float()), wanted, bound)
    close(gpu.scores(x[0, -1], mlp.gate_up), plain.scores(x[0, -1], mlp.gate_up), bound)


@pytest.mark.parametrize('keep', [False, True])
@pytest.mark.parametrize(
    ('tokens', 'width', 'inner'),
    [(1, 2048, 11008), (17, 2048, 11008), (256, 2048, 11008), (1024, 1280, 3456)],
)
def test_projections_in_8_bits(tokens, width, inner, keep):
    """Within what 3 bits of mantissa for weights and inputs leave: about 4 %."""
    x, norm = normal(1, tokens, width, dtype=torch.bfloat16), normal(width, dtype=torch.bfloat16)
    mlp = Mlp(
        normal(2 * inner, width, dtype=torch.bfloat16, scale=width**-0.5),
        normal(width, inner, dtype=torch.bfloat16, scale=inner**-0.5),
    )
    small = quantise_mlp(mlp)
    if keep:
        small = Mlp(small.gate_up, gpu.quantise_weight(mlp.down, keep))
    found = gpu.norm_linear(x, norm, 1e-6, small.gate_up)
    close(found, plain.norm_linear(x, norm, 1e-6, mlp.gate_up), 0.05)
    for bias in (None, normal(width, dtype=torch.bfloat16)):
        given = gpu.norm_swiglu(x, norm, 1e-6, small)
        found, again, late = (gpu.linear_add(given, small.down, bias, x.float()) for _ in range(3))
        assert isinstance(found, Unsummed) == (not keep and tokens > 1)
        if isinstance(found, Unsummed):
            # The sum is left to the norm that comes next, which gives what one after it would.
            normed = gpu.rms_norm(late, norm, 1e-6)
            found, again, late = (gpu.settled(y) for y in (found, again, late))
            assert torch.equal(late, found)
            assert torch.equal(normed, gpu.rms_norm(found, norm, 1e-6))
        assert torch.equal(found, again)
        hidden = plain.norm_swiglu(x, norm, 1e-6, mlp)
        wanted = plain.linear_add(hidden, mlp.down, bias, x.float())
        close(found - x, wanted - x, 0.08)


@pytest.mark.parametrize('tile', [(128, 128), (128, 64), (256, 64), (64, 128)])
@pytest.mark.parametrize(('tokens', 'width', 'rows'), [(256, 2048, 12320), (77, 1296, 208)])
def test_our_product_in_8_bits_beside_the_librarys(tokens, width, rows, tile):
    """Sizes that no tile divides among them; the two differ by their last rounding alone."""
    weight = gpu.quantise_weight(normal(rows, width))
    x = gpu.linear.normed(normal(1, tokens, width), normal(width), 1e-6, None, True)
    for bias in (None, normal(rows, dtype=torch.bfloat16)):
        scales = x.scale[:, None], weight.scale[None]
        values = x.values[0], weight.values.T
        wanted = torch._scaled_mm(*values, *scales, bias=bias, out_dtype=torch.bfloat16)
        found = torch.full((1, tokens, rows), torch.nan, dtype=torch.bfloat16, device='cuda')
        gpu.fp8._multiply(x, weight, bias, found, tile, 3)
        close(found[0], wanted, 2e-3)
        close(gpu.fp8.fp8_linear(x, weight, bias, torch.bfloat16)[0], wanted, 2e-3)
        # In shares, each is rounded for itself.
        shares = torch.full((3, tokens, rows), torch.nan, dtype=torch.bfloat16, device='cuda')
        gpu.fp8._multiply(x, weight, None, shares, tile, 3)
        close(shares.float().sum(0) + (0 if bias is None else bias), wanted.float(), 5e-3)


def test_products_in_8_bits_that_just_fill_a_gpu_are_ours(monkeypatch):
    """On the 132 multiprocessors of an H100: a delta layer's inputs, not those of two pictures."""
    h100 = SimpleNamespace(
        major=9, multi_processor_count=132, shared_memory_per_multiprocessor=233_472
    )
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda _: h100)
    gpu.fp8._tile_of_one_wave.cache_clear()
    found = {
        sizes: gpu.fp8._tile_of_one_wave(*sizes, torch.device('cuda', 0))
        for sizes in ((256, 12320), (1024, 3840), (512, 12320), (256, 2560), (16, 22016))
    }
    gpu.fp8._tile_of_one_wave.cache_clear()
    assert list(found.values()) == [(128, 64), (128, 128), None, None, None]


@pytest.mark.parametrize('precision', ['16 bits', '8 bits', 'inner values too'])
@pytest.mark.parametrize(
    ('tokens', 'width', 'inner'), [(1024, 1280, 3456), (900, 2096, 1104), (34, 2096, 1104)]
)
def test_swiglu_in_the_kernel_of_its_product(tokens, width, inner, precision):
    """It gives what the library's product and SwiGLU do, of inputs rounded the same way."""
    x, norm = normal(2, tokens // 2, width), normal(width, dtype=torch.bfloat16)
    weight = normal(2 * inner, width, dtype=torch.bfloat16, scale=width**-0.5)
    bias = normal(2 * inner, dtype=torch.bfloat16)
    shift = normal(width, dtype=torch.bfloat16)
    down = normal(width, inner, dtype=torch.bfloat16)
    fp8 = precision != '16 bits'
    for b in (None, bias):
        m = Mlp(weight, down, b, shift=shift)
        reach = None
        if precision == 'inner values too':
            m, reach = quantise_mlp(m), torch.empty(tokens, device='cuda')
        elif fp8:
            m = replace(m, gate_up=gpu.quantise_weight(weight))
        normed = gpu.linear.normed(x, norm, 1e-6, shift, fp8, reach)
        both = gpu.linear.project(normed, m.gate_up, b, norm.dtype)
        wanted = gpu.mlp.silu_mul(both, m.inner_scale, reach)
        one = gpu.mlp._swiglu(normed, m, norm.dtype, reach)
        found = gpu.norm_swiglu(x, norm, 1e-6, m)
        if reach is not None:
            assert torch.equal(one.scale, wanted.scale)
            # Where the library's product was rounded to 16 bits, a rounding to 8 may tip over.
            assert (one.values.float() != wanted.values.float()).float().mean() < 0.1
            found, one, wanted = (decoded(y) for y in (found, one, wanted))
        close(one, wanted, 5e-3 if reach is None else 2e-2)
        at_once = (tokens >= gpu.mlp.MANY or reach is not None) and gpu.mlp._has_room(x.device)
        assert torch.equal(found, one if at_once else wanted)


def decoded(x: Fp8) -> torch.Tensor:
    return x.values.double() * x.scale.view(*x.values.shape[:-1], 1)


def test_inner_values_in_8_bits_keep_within_their_range():
    """Even of a token that looks like a gate and its up row; `down` takes what was rounded."""
    width, inner = 2048, 11008
    weight = normal(2 * inner, width, dtype=torch.bfloat16, scale=width**-0.5)
    weight[0] *= 20
    weight[inner] = weight[0]
    x = normal(1, 96, width, dtype=torch.bfloat16)
    x[0, 0] = weight[0]
    exact = Mlp(weight, normal(width, inner, dtype=torch.bfloat16, scale=inner**-0.5))
    small, norm = quantise_mlp(exact), torch.ones(width, device='cuda', dtype=torch.bfloat16)
    found = gpu.norm_swiglu(x, norm, 1e-6, small)
    assert found.values[0, 0, 0].item() in (416, 448)
    hidden = plain.norm_swiglu(x, norm, 1e-6, exact).double()
    meant = decoded(found) / small.inner_scale.double()
    close(meant, hidden, 0.08)
    close(meant[:, 1:], hidden[:, 1:], 0.08)
    wanted = decoded(found) @ (small.down.values.double() * small.down.scale[:, None]).T
    residual = torch.zeros(1, 96, width, device='cuda')
    close(gpu.linear_add(found, small.down, None, residual).sum().double(), wanted, 5e-3)


def test_biases_go_into_the_padding():
    """Both biases into the residual stream of a vision block become a column of `down`."""
    block = Block(
        normal(64), Attention(normal(192, 64), normal(192), normal(64, 64), normal(64)),
        normal(64), Mlp(normal(320, 64), normal(64, 160), normal(320), normal(64)),
    )  # fmt: skip
    wide = _widen(block, fp8=False)
    assert wide.mlp.down.shape == (64, 256)
    assert wide.mixer.out_bias is wide.mlp.down_bias is None
    for tokens in (1, 9):
        x, o = normal(1, tokens, 64), normal(1, tokens, 64)
        results = []
        for kernels, b in ((plain, block), (gpu, block), (gpu, wide)):
            y = kernels.linear_add(o, b.mixer.out, b.mixer.out_bias, x.clone())
            inner = kernels.norm_swiglu(y, b.norm2, 1e-6, b.mlp)
            results.append(kernels.linear_add(inner, b.mlp.down, b.mlp.down_bias, y))
        close(results[1], results[0], 1e-5)
        close(results[2], results[0], 1e-5)


@pytest.mark.parametrize(
    ('height', 'width'),
    [(448, 448), (720, 1280), (480, 640), (1080, 1920), (1920, 1080), (90, 50)],
)
def test_frames_of_any_size_become_patches(height, width):
    config, size = VisionConfig(), (448, 448)
    frames = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, device='cuda')
    buffer = torch.randint(0, 256, (1, 2, pixels.MOST_PIXELS * 3), dtype=torch.uint8).cuda()
    buffer[0, :, : frames[0].numel()] = frames.flatten(1)
    tables = [
        [torch.from_numpy(t).cuda().expand(1, 2, *t.shape).contiguous() for t in pair]
        for pair in (pixels.taps(height, 448), pixels.taps(width, 448))
    ]
    sizes = torch.tensor(pixels.size_of(height, width, size), device='cuda')
    sizes = sizes.expand(1, 2, 4).contiguous()
    starts, weights = zip(*tables, strict=True)
    found = pixels.patches(buffer, sizes, starts, weights, size, config, torch.float32)
    found = found.unflatten(2, (3, 2, 14, 14))
    for i in range(2):
        wanted = vision.patchify(vision.resize(frames[i], size), config, torch.float32)
        wanted = wanted.unflatten(1, (3, 2, 14, 14))
        difference = (found[0, :, :, i] - wanted[:, :, i]).abs() * 255 * max(vision.PIXEL_STD)
        assert difference.max() < 1.1  # one step of 255
        assert (difference > 0.01).float().mean() < 2e-3  # where rounding is a near tie


def big(config):
    """The 4B widths in a few layers, behind the golden network's embedding."""
    return replace(
        config, hidden_size=256, intermediate_size=512, num_attention_heads=16,
        num_key_value_heads=2, head_dim=128, mrope_section=(16, 24, 24), num_linear_heads=16,
        num_linear_key_value_heads=16, linear_head_dim=128, sliding_window=1024,
        num_hidden_layers=4, layer_types=config.layer_types[:4],
    )  # fmt: skip


def mixers(config, kernels, block, rounded, dtype):
    """All that attention and delta layers give over a few turns, and the state they leave.

    What goes in is rounded to `rounded`; the computation is in `dtype`.
    """
    random = torch.Generator('cuda').manual_seed(1)
    state = StreamState(config, block, 'cuda', dtype, rows=3)

    def normal(*shape):
        x = torch.randn(*shape, device='cuda', generator=random)
        return x.to(rounded).to(dtype)

    state['cursor'].copy_(torch.tensor([0, 5, state.ring - 3]))
    heads = config.num_linear_heads
    mixer = decoder.GatedDeltaNet(
        None,
        normal(sum(config.linear_splits[:3]), 4),
        torch.empty(heads, device='cuda').uniform_(1, 16, generator=random).log(),
        torch.randn(heads, device='cuda', generator=random) - 3,
        normal(config.linear_value_dim),
        None,
    )
    qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    outputs = []
    turns = [(block, (0, 2), None), (1, (0,), None), (16, (2,), (11,)), (16, (1,), (2,))]
    turns += [(block, (2, 1), (block, 5)), (1, (1,), None), (1, (2,), None)]
    turns += [(block, (0, 2), None)] * (3 * config.sliding_window // block)
    turns += [(1, (0, 2), None), (7, (1,), None)]
    for tokens, rows, lengths in turns:
        rows = torch.tensor(rows, device='cuda')
        kept = lengths or (tokens,) * len(rows)
        lengths = torch.tensor(kept, device='cuda')
        positions = state['largest'][rows][:, None, None] + 1
        positions = positions + torch.arange(tokens, device='cuda').expand(len(rows), 3, -1)
        turn = state.advance(positions, rows, lengths)
        rope = decoder.rope_tables(config, positions)

        x = normal(len(rows), tokens, sum(config.linear_splits))
        memory = state.layer(1, 'conv'), state.layer(1, 'recurrent')
        delta = kernels.gated_delta_net(x, mixer, *memory, turn, config)
        memory = state.layer(0, 'keys'), state.layer(0, 'values')
        x = normal(len(rows), tokens, qkv)
        seen = kernels.sliding_attention(x, rope, *memory, turn, config)
        for i, length in enumerate(kept):
            outputs += [delta[i, :length], seen[i, :length]]
    return outputs, state


@pytest.mark.parametrize('dtype', BOUNDS)
@pytest.mark.parametrize('size', ['golden', '4b'])
def test_mixers_over_three_windows(golden, size, dtype):
    """Padded, batched, one token at a time, from any ring start, over a state that lives on.

    The reference computes in float32, from the same rounded inputs.
    """
    config = load_checkpoint(golden / 'tiny').config
    config, block = (config, 36) if size == 'golden' else (big(config), 256)
    found, state = mixers(config, gpu, block, dtype, dtype)
    wanted, reference = mixers(config, plain, block, dtype, torch.float32)
    for x, y in zip(found, wanted, strict=True):
        close(x.float(), y, BOUNDS[dtype])
    for name in ('recurrent', 'conv'):
        close(state.layer(1, name).float(), reference.layer(1, name), BOUNDS[dtype])
    counters = ('tokens', 'cursor', 'largest')
    assert all(torch.equal(state[name], reference[name]) for name in counters)


@pytest.mark.parametrize('tokens', [1, 40])
def test_a_delta_layer_gives_what_its_last_projection_takes(golden, tokens):
    config = big(load_checkpoint(golden / 'tiny').config)
    heads, wide = config.num_linear_heads, config.linear_value_dim
    found = []
    for fp8 in (False, True):
        torch.manual_seed(1)
        state = StreamState(config, 64, 'cuda', torch.bfloat16)
        out = normal(256, heads * wide, dtype=torch.bfloat16, scale=0.01)
        mixer = decoder.GatedDeltaNet(
            None, normal(sum(config.linear_splits[:3]), 4, dtype=torch.bfloat16),
            torch.zeros(heads, device='cuda'), torch.zeros(heads, device='cuda'),
            normal(wide, dtype=torch.bfloat16), gpu.quantise_weight(out) if fp8 else out,
        )  # fmt: skip
        x = normal(1, tokens, sum(config.linear_splits), dtype=torch.bfloat16)
        turn = state.advance(torch.arange(tokens, device='cuda').expand(1, 3, -1))
        memory = state.layer(1, 'conv'), state.layer(1, 'recurrent')
        mixed = gpu.gated_delta_net(x, mixer, *memory, turn, config)
        assert isinstance(mixed, Fp8) == (fp8 and tokens > 1)
        stream = torch.zeros(1, tokens, 256, device='cuda')
        found.append(gpu.settled(gpu.linear_add(mixed, mixer.out, None, stream)))
    close(found[1], found[0], 0.05)


@pytest.mark.parametrize('dtype', BOUNDS)
@pytest.mark.parametrize(('heads', 'width'), [(2, 16), (16, 80)])
def test_segment_attention(heads, width, dtype):
    cases = [(128, 64, False), (128, 128, False), (128, 64, True), (128, 128, True)]
    cases += [(1024, 1024, False), (400, 200, False), (400, 200, True), (400, 400, True)]
    for slots, length, masked in cases:
        angle = torch.randn(1, slots, width // 2, device='cuda').repeat(1, 1, 2)
        rope = angle.cos(), angle.sin()
        valid = torch.rand(slots // length, length, device='cuda') > 0.3
        valid[:, 0] = True
        mask = valid if masked else None
        qkv = normal(2, slots, 3 * heads * width, dtype=dtype)
        wanted = plain.segment_attention(qkv, rope, heads, length, mask)
        found = gpu.segment_attention(qkv.clone(), rope, heads, length, mask)
        if masked:
            found, wanted = (x[:, valid.flatten()] for x in (found, wanted))
        close(found, wanted, BOUNDS[dtype])


@pytest.mark.parametrize('dtype', BOUNDS)
def test_as_on_a_gpu_before_hopper(golden, dtype, monkeypatch):
    """Which reads rings without copying tiles, and windows as it does long segments."""
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda *_: (8, 0))
    config = load_checkpoint(golden / 'tiny').config
    found, _ = mixers(config, gpu, 36, dtype, dtype)
    wanted, _ = mixers(config, plain, 36, dtype, torch.float32)
    for x, y in zip(found, wanted, strict=True):
        close(x.float(), y, BOUNDS[dtype])
    angle = torch.randn(1, 128, 40, device='cuda').repeat(1, 1, 2)
    rope, qkv = (angle.cos(), angle.sin()), normal(2, 128, 3 * 16 * 80, dtype=dtype)
    wanted = plain.segment_attention(qkv, rope, 16, 64, None)
    close(gpu.segment_attention(qkv, rope, 16, 64, None), wanted, BOUNDS[dtype])


def test_the_whole_network_on_the_gpu_kernels(golden):
    weights = replace(load_checkpoint(golden / 'tiny', 'cuda'), kernels=gpu)
    plain_weights = replace(weights, kernels=plain)
    results = []
    for w in (weights, plain_weights):
        state = StreamState(w.config, 36, 'cuda')
        hidden = []
        for i in range(12):
            x = torch.randn(1, 36, 64, generator=torch.Generator().manual_seed(i)).cuda()
            positions = torch.arange(36, device='cuda').expand(1, 3, -1) + 2 * i
            given = x.clone()
            hidden.append(decoder.decode(w, x, positions, state))
            assert torch.equal(x, given)
        results.append((torch.cat(hidden), state))
    (found, state), (wanted, reference) = results
    close(found, wanted, 1e-4)
    for name, tensor in state.tensors.items():
        if tensor.is_floating_point():
            close(tensor, reference.tensors[name], 1e-4)
        else:
            assert torch.equal(tensor, reference.tensors[name])
