"""Raw images in every encoding, good and bad, to RGB."""

import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from infinitevl_ros.media.images import ENCODINGS, ImageError, from_image

PACKED = {'rgb': [0, 1, 2], 'bgr': [2, 1, 0], 'rgba': [0, 1, 2, 3], 'bgra': [2, 1, 0, 3]}
SIZES = st.integers(1, 9)
# A step need not be a multiple of the pixel, and the last row's padding may be missing.
PADDINGS = st.tuples(st.integers(0, 5), st.booleans())
# The type of a value in the data, and the message's is_bigendian.
DEPTHS = {'8': [('u1', False), ('u1', True)], '16': [('<u2', False), ('>u2', True)]}


def message(rows, size, encoding, padding=(0, True), big=False):
    """An image of `size` (height, width) whose data has `rows`."""
    rows = np.ascontiguousarray(rows).view(np.uint8)
    count, last = padding
    data = np.pad(rows, ((0, 0), (0, count)), constant_values=77).tobytes()
    if count and not last:
        data = data[:-count]
    return Image(
        height=size[0],
        width=size[1],
        encoding=encoding,
        is_bigendian=big,
        step=rows.shape[1] + count,
        data=array.array('B', data),
    )


def values(shape, dtype, seed):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, True)


def in_8_bits(pixels):
    return np.round(pixels * (255 / np.iinfo(pixels.dtype).max))


def plain(height=4, width=6):
    """An rgb8 image and its pixels."""
    pixels = values((height, width, 3), np.uint8, 0)
    return message(pixels.reshape(height, -1), (height, width), 'rgb8'), pixels


@pytest.mark.parametrize('depth', DEPTHS)
@settings(deadline=None)
@given(st.sampled_from([*PACKED, 'mono']), SIZES, SIZES, PADDINGS, st.data(), st.integers(0, 99))
def test_packed_colours_and_grey(depth, name, height, width, padding, data, seed):
    dtype, big = data.draw(st.sampled_from(DEPTHS[depth]))
    order = PACKED.get(name, [0])
    pixels = values((height, width, 4), dtype[-2:], seed)
    rows = pixels[..., order].astype(dtype).reshape(height, -1)
    found = from_image(message(rows, (height, width), name + depth, padding, big))
    assert found.dtype == np.uint8
    wanted = pixels[..., [0, 0, 0] if name == 'mono' else [0, 1, 2]]
    np.testing.assert_array_equal(found, in_8_bits(wanted))


@pytest.mark.parametrize(('dtype', 'big'), DEPTHS['16'])
def test_each_value_of_16_bits(dtype, big):
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = from_image(message(grey.astype(dtype), (256, 256), 'mono16', big=big))
    np.testing.assert_array_equal(found, in_8_bits(grey)[..., None].repeat(3, 2))


def test_an_rgb_image_is_not_copied():
    source, _ = plain()
    assert np.shares_memory(from_image(source), np.frombuffer(source.data, np.uint8))


@pytest.mark.parametrize('depth', DEPTHS)
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('pure', [0, 1, 2, None])
@settings(deadline=None, max_examples=25)
@given(st.integers(3, 9), st.integers(3, 9), PADDINGS, st.data(), st.integers(0, 99))
def test_bayer_of_a_flat_colour(depth, pattern, pure, height, width, padding, data, seed):
    """The mosaic of one colour is that colour again, only if each site is taken for what it is."""
    dtype, big = data.draw(st.sampled_from(DEPTHS[depth]))
    colour = values(3, dtype[-2:], seed)
    if pure is not None:
        colour[:] = 0
        colour[pure] = np.iinfo(dtype).max
    sites = colour[['rgb'.index(letter) for letter in pattern]].reshape(2, 2)
    mosaic = np.tile(sites, (5, 5))[:height, :width].astype(dtype)
    encoding = f'bayer_{pattern}{depth}'
    found = from_image(message(mosaic, (height, width), encoding, padding, big))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.full((height, width, 3), in_8_bits(colour)))


def bt601(pixels):
    """Y, U and V [height, width] of RGB pixels by BT.601 in its limited range."""
    red, green, blue = np.moveaxis(pixels / 255, 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    u = 128 + 224 * (blue - luma) / (2 * (1 - 0.114))
    v = 128 + 224 * (red - luma) / (2 * (1 - 0.299))
    return [np.round(plane).astype(np.uint8) for plane in (16 + 219 * luma, u, v)]


def yuv(pixels, order):
    """Rows of 4:2:2 ('uyvy' ...) or of 4:2:0, whose order is that of its chroma ('uv', 'vu')."""
    y, u, v = bt601(pixels)
    height, width = y.shape
    if len(order) == 4:
        parts = {'u': u[:, ::2], 'v': v[:, ::2]}
        lumas = iter([y[:, ::2], y[:, 1::2]])
        samples = [next(lumas) if letter == 'y' else parts[letter] for letter in order]
        return np.stack(samples, 2).reshape(height, -1)
    planes = {'u': u[::2, ::2], 'v': v[::2, ::2]}
    chroma = np.stack([planes[letter] for letter in order], 2)
    return np.concatenate([y, chroma.reshape(height // 2, width)])


YUV = {
    'yuv422': ('uyvy', 1),
    'uyvy': ('uyvy', 1),
    'yuv422_yuy2': ('yuyv', 1),
    'yuyv': ('yuyv', 1),
    'nv12': ('uv', 2),
    'nv21': ('vu', 2),
}


def close(found, wanted):
    """Half a step of each of Y, U, V and the result is 1 of red and green and 2 of blue."""
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert (np.abs(found.astype(int) - wanted) <= (1, 1, 2)).all()


@pytest.mark.parametrize('encoding', YUV)
@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), PADDINGS, st.integers(0, 99))
def test_yuv(encoding, height, width, padding, seed):
    """Each block of pixels has a colour that it shares, and each pixel a brightness of its own."""
    order, lines = YUV[encoding]
    colours = np.random.default_rng(seed).integers(0, 156, (height, width, 3))
    pixels = colours.repeat(lines, 0).repeat(2, 1)
    pixels += np.random.default_rng(seed).integers(0, 101, (*pixels.shape[:2], 1))
    source = message(yuv(pixels, order), pixels.shape[:2], encoding, padding)
    close(from_image(source), pixels)


@pytest.mark.parametrize('encoding', YUV)
@pytest.mark.parametrize('corner', range(8))
def test_yuv_of_pure_colours(encoding, corner):
    pixels = np.full((2, 4, 3), [255 * (corner >> i & 1) for i in range(3)])
    source = message(yuv(pixels, YUV[encoding][0]), (2, 4), encoding)
    close(from_image(source), pixels)


def test_each_encoding_is_tested():
    depths = [f'{name}{depth}' for name in [*PACKED, 'mono'] for depth in DEPTHS]
    bayer = [f'bayer_{p}{d}' for p in ('rggb', 'bggr', 'gbrg', 'grbg') for d in DEPTHS]
    assert sorted(ENCODINGS) == sorted([*depths, *bayer, *YUV])


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'encoding': '16UC1'}, 'encoding "16UC1" is not supported; supported are rgb8, bgr8'),
        ({'encoding': ''}, 'encoding "" is not supported'),
        ({'width': 0}, '0 x 4 pixels'),
        ({'height': 0}, '6 x 0 pixels'),
        ({'step': 17}, 'step is 17 bytes, but a row of 6 rgb8 pixels takes 18'),
        ({'step': 19}, '72 bytes of data, but 6 x 4 rgb8 with step 19 takes 75'),
        ({'data': array.array('B', bytes(71))}, '71 bytes of data'),
        ({'data': array.array('B')}, '0 bytes of data'),
        ({'height': 2**32 - 1}, '72 bytes of data'),
        ({'width': 2**32 - 1, 'step': 2**32 - 1}, 'a row of 4294967295 rgb8 pixels'),
        ({'encoding': 'rgb16'}, 'a row of 6 rgb16 pixels takes 36'),
        ({'encoding': 'yuyv', 'step': 11}, 'a row of 6 yuyv pixels takes 12'),
        ({'encoding': 'yuyv', 'width': 5}, 'takes a width that is a multiple of 2 and'),
        ({'encoding': 'nv12', 'width': 5}, 'takes a width that is a multiple of 2 and'),
        ({'encoding': 'nv12', 'height': 3}, 'and a height that is one of 2'),
        ({'encoding': 'nv12'}, '72 bytes of data, but 6 x 4 nv12 with step 18 takes 96'),
        ({'encoding': 'nv21', 'step': 14}, '72 bytes of data, but .* takes 76'),
        ({'encoding': 'bayer_rggb8', 'width': 2}, '2 x 4 pixels, but .* at least 3 x 3'),
        ({'encoding': 'bayer_grbg16', 'height': 2}, '6 x 2 pixels, but .* at least 3 x 3'),
    ],
)
def test_lies_about_sizes_are_refused(changes, said):
    source, _ = plain()
    for name, value in changes.items():
        setattr(source, name, value)
    with pytest.raises(ImageError, match=said):
        from_image(source)


@settings(deadline=None, max_examples=500)
@given(st.sampled_from([*ENCODINGS]), SIZES, SIZES, st.integers(0, 80), st.integers(0, 400))
def test_any_sizes_are_a_picture_or_refused(encoding, height, width, step, size):
    source = Image(height=height, width=width, encoding=encoding, step=step)
    source.data = array.array('B', bytes(size))
    try:
        found = from_image(source)
    except ImageError:
        return
    assert found.shape == (height, width, 3)
