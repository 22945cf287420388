"""Image messages, good and bad, to RGB."""

import array

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from infinitevl_ros.ros.images import ENCODINGS, ImageError, from_compressed, from_image


def rgb(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encode(pixels, encoding):
    """RGB pixels in the layout that an encoding names, [height, width * channels]."""
    order = {'rgb8': [0, 1, 2], 'bgr8': [2, 1, 0], 'rgba8': [0, 1, 2, 0], 'bgra8': [2, 1, 0, 0]}
    if encoding == 'mono8':
        return pixels[..., 0]
    return pixels[..., order[encoding]].reshape(len(pixels), -1)


def message(rows, width, encoding, padding=0, last_padding=True):
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    data = rows.tobytes()
    if padding and not last_padding:
        data = data[:-padding]
    return Image(
        height=len(rows),
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        data=array.array('B', data),
    )


@settings(deadline=None)
@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 99),
)
def test_every_encoding_and_step(encoding, height, width, padding, last, seed):
    """A step need not be a multiple of the pixel, and the last row's padding may be missing."""
    pixels = rgb(height, width, seed)
    found = from_image(message(encode(pixels, encoding), width, encoding, padding, last))
    wanted = pixels if encoding != 'mono8' else pixels[..., :1].repeat(3, 2)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)


def test_an_rgb_image_is_not_copied():
    source = message(encode(rgb(4, 6), 'rgb8'), 6, 'rgb8')
    assert np.shares_memory(from_image(source), np.frombuffer(source.data, np.uint8))


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
    ],
)
def test_lies_about_sizes_are_refused(changes, said):
    source = message(encode(rgb(4, 6), 'rgb8'), 6, 'rgb8')
    for name, value in changes.items():
        setattr(source, name, value)
    with pytest.raises(ImageError, match=said):
        from_image(source)


def test_png_is_exact_and_jpeg_close():
    pixels = cv2.GaussianBlur(rgb(40, 60), (0, 0), 5)
    bgr = pixels[..., ::-1]
    for extension, tolerance in (('.png', 0), ('.jpg', 12)):
        data = cv2.imencode(extension, bgr)[1].tobytes()
        found = from_compressed(CompressedImage(format=extension[1:], data=data))
        assert np.abs(found.astype(int) - pixels).max() <= tolerance


def test_a_grey_png_is_rgb():
    data = cv2.imencode('.png', np.full((3, 5), 9, np.uint8))[1].tobytes()
    found = from_compressed(CompressedImage(format='png', data=data))
    np.testing.assert_array_equal(found, np.full((3, 5, 3), 9))


@settings(deadline=None)
@given(data=st.binary(max_size=100), prefix=st.sampled_from([b'', b'\xff\xd8\xff', b'\x89PNG']))
def test_any_bytes_as_a_compressed_image(data, prefix):
    with pytest.raises(ImageError):
        from_compressed(CompressedImage(format='jpeg', data=prefix + data))
