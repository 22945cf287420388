"""Images that lie oddly in their messages, over DDS: what is remembered is the picture's alone."""

import numpy as np
import torch
from conftest import SECOND, counts, until

from infinitevl_ros.engine import Snapshot

HEIGHT, WIDTH = 48, 64
RANDOM = np.random.default_rng(11)


def noise(rows=HEIGHT, row_bytes=WIDTH):
    return RANDOM.integers(0, 256, (rows, row_bytes), np.uint8)


def padded(rows, count):
    """Each row with `count` bytes more, which are no part of the picture."""
    rows = np.ascontiguousarray(rows).view(np.uint8)
    return np.hstack([rows, noise(len(rows), count)])


def rgb(grey):
    return grey[..., None].repeat(3, 2)


def mosaic(colour):
    """The sites of a bayer_rggb8 camera that looks at one colour."""
    red, green, blue = colour
    return np.tile(np.array([[red, green], [green, blue]], np.uint8), (HEIGHT // 2, WIDTH // 2))


def layouts():
    """Of each: a plain image, then the same picture in another layout, as (rows, encoding)."""
    grey, wide, colour = noise(), noise(row_bytes=3 * WIDTH), (200, 30, 90)
    plain = rgb(grey), 'rgb8'
    yield 'rgb8, padded', (wide, 'rgb8'), (padded(wide, 5), 'rgb8')
    yield 'mono8, padded', plain, (padded(grey, 7), 'mono8')
    # In 16 bits 257 times as much; what is added is rounded away and makes the bytes unlike.
    finer = RANDOM.integers(-128, 128, grey.shape)
    deep = (grey.astype(int) * 257 + finer).clip(0, 65535).astype('>u2')
    yield 'mono16, big-endian', plain, (deep, 'mono16')
    yield 'mono16, big-endian at odd addresses', plain, (padded(deep, 3), 'mono16')
    flat = np.full((HEIGHT, WIDTH, 3), colour, np.uint8)
    yield 'bayer_rggb8', (flat, 'rgb8'), (mosaic(colour), 'bayer_rggb8')
    yield 'bayer_rggb8, padded', (grey, 'bayer_rggb8'), (padded(grey, 9), 'bayer_rggb8')
    planes, packed = noise(HEIGHT * 3 // 2), noise(row_bytes=2 * WIDTH)
    yield 'nv12, padded', (planes, 'nv12'), (padded(planes, 5), 'nv12')
    yield 'yuv422, padded', (packed, 'yuv422'), (padded(packed, 3), 'yuv422')


def same(one, other):
    tensors = other.tensors
    return (one.metadata, one.tensors.keys()) == (other.metadata, tensors.keys()) and all(
        torch.equal(tensor, tensors[name]) for name, tensor in one.tensors.items()
    )


def test_an_odd_layout_leaves_the_memory_of_the_plain_picture(host, connect, tmp_path):
    """The plain images go to one camera and the odd ones to another."""
    node = host(cameras=['front', 'rear'], caption_period=0.0, memory_dir=str(tmp_path))
    clients = [connect(camera=name, image_topic=f'{name}/image') for name in ('front', 'rear')]
    frames = 0

    def memories(*images):
        """Both of them, after an image more for each."""
        nonlocal frames
        frames += 1
        for camera, (rows, encoding) in enumerate(images):
            fields = {'encoding': encoding, 'height': HEIGHT, 'width': WIDTH}
            fields['is_bigendian'] = encoding == 'mono16'
            clients[camera].publish(clients[camera].image(rows, frames * SECOND, **fields))
            assert until(lambda camera=camera: counts(node, camera).taken == frames), encoding
        reply = clients[0].save(f'after{frames}')
        return [Snapshot.read(path) for path in reply.paths]

    for name, plain, odd in layouts():
        assert same(*memories(plain, odd)), name
    grey = noise()
    darker = grey.copy()
    darker[20, 30] ^= 128
    assert not same(*memories((grey, 'mono8'), (darker, 'mono8'))), 'one pixel would have told'
