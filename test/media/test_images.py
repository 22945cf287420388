"""Compressed images, good and bad, to RGB."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage

from infinitevl_ros.media.images import ImageError, from_compressed


def picture(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, True)


@pytest.mark.parametrize('said', ['{}', 'rgb8; {} compressed bgr8', 'bgr8; {} compressed bgr8'])
def test_png_is_exact_and_jpeg_close(said):
    """The format names the encoding of the raw image; the order in the file is always the same."""
    pixels = cv2.GaussianBlur(picture((40, 60, 3)), (0, 0), 5)
    for name, tolerance in (('png', 0), ('jpeg', 12)):
        data = cv2.imencode(f'.{name}', pixels[..., ::-1])[1].tobytes()
        found = from_compressed(CompressedImage(format=said.format(name), data=data))
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - pixels).max() <= tolerance


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_png_of_either_depth_grey_and_with_alpha(dtype, channels):
    pixels = picture((30, 50, channels), dtype)
    pixels[:9, :9, 3:] = 0
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    data = cv2.imencode('.png', pixels[..., order])[1].tobytes()
    found = from_compressed(CompressedImage(format='mono16; png compressed ', data=data))
    assert found.dtype == np.uint8
    wanted = np.round(pixels * (255 / np.iinfo(dtype).max))
    np.testing.assert_array_equal(found, wanted[..., [0] * 3 if channels == 1 else [0, 1, 2]])


def test_exif_does_not_turn_a_picture():
    """A camera's rows are what its calibration is about, whatever a JPEG says of its mounting."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    PIL.Image.fromarray(picture((4, 8, 3))).save(file, 'jpeg', exif=exif)
    data = file.getvalue()
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (8, 4, 3)
    assert from_compressed(CompressedImage(format='jpeg', data=data)).shape == (4, 8, 3)


@settings(deadline=None)
@given(data=st.binary(max_size=100), prefix=st.sampled_from([b'', b'\xff\xd8\xff', b'\x89PNG']))
def test_any_bytes_as_a_compressed_image(data, prefix):
    with pytest.raises(ImageError):
        from_compressed(CompressedImage(format='jpeg', data=prefix + data))


def test_a_picture_of_floating_point_numbers_is_refused():
    data = cv2.imencode('.tiff', np.ones((3, 4, 3), np.float32))[1].tobytes()
    with pytest.raises(ImageError, match='format "32FC3; tiff compressed " are not a readable'):
        from_compressed(CompressedImage(format='32FC3; tiff compressed ', data=data))
