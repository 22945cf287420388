"""Bags that are cut off, altered, in parts or compressed: what is left is read, the rest told."""

import random
import shutil
import sqlite3
import struct
import zlib
from contextlib import closing

import lz4.frame
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rosbags import rosbag1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from test_source import SECOND, STORE, image, same, shots, text, write

from infinitevl_ros.media import bag_storage, mcap
from infinitevl_ros.media.bag_writer import write_bag
from infinitevl_ros.media.source import SourceError, open_source

IMAGE = 'sensor_msgs/msg/Image'
SHOTS = shots(30)
COMPRESSORS = {
    '': bytes,
    'lz4': lz4.frame.compress,
    'zstd': bag_storage.zstd.compress,
}


def record(kind, content):
    return struct.pack('<BQ', kind, len(content)) + content


def string(words):
    return struct.pack('<I', len(words)) + words.encode()


def cdr(shot):
    return bytes(STORE.serialize_cdr(image(shot.stamp, shot.pixels), IMAGE))


def mcap_file(compression, profile='ros2', per_chunk=7):
    """An MCAP file as the specification has it, without an index: SHOTS on /i, and a topic /x."""
    chunks = []
    for first in range(0, len(SHOTS), per_chunk):
        content = record(3, struct.pack('<H', 1) + string(IMAGE) + string('ros2msg') + string(''))
        for channel, topic in ((1, '/i'), (2, '/x')):
            content += record(
                4,
                struct.pack('<HH', channel, channel & 1)
                + string(topic)
                + string('cdr')
                + string(''),
            )
        for shot in SHOTS[first : first + per_chunk]:
            for channel in (2, 1):
                head = struct.pack('<HIQQ', channel, 0, shot.stamp, shot.stamp)
                content += record(5, head + cdr(shot))
        packed = COMPRESSORS[compression](content)
        head = struct.pack('<QQQI', 0, 0, len(content), zlib.crc32(content)) + string(compression)
        chunks.append(record(6, head + struct.pack('<Q', len(packed)) + packed))
    end = record(0x0F, bytes(4)) + record(2, bytes(20)) + mcap.MAGIC
    return mcap.MAGIC + record(1, string(profile) + string('')) + b''.join(chunks) + end


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A folder of whole files; all hold SHOTS."""
    folder = tmp_path_factory.mktemp('whole')
    write_bag(folder / 'written.mcap', '/i', SHOTS)
    messages = [(shot.stamp, image(shot.stamp, shot.pixels)) for shot in SHOTS]
    write(folder / 'bag', {'/i': (IMAGE, messages)}, StoragePlugin.SQLITE3)
    (folder / 'bag' / 'bag.db3').rename(folder / 'rows.db3')
    for name in COMPRESSORS:
        (folder / f'{name or "plain"}.mcap').write_bytes(mcap_file(name))
    return folder


NAMES = ('written.mcap', 'rows.db3', 'plain.mcap', 'lz4.mcap', 'zstd.mcap')


def left(path):
    """What can be read, and the warnings; nothing but SourceError may come of any file."""
    try:
        source = open_source(path)
    except SourceError as error:
        return [], [str(error)]
    return list(source), source.warnings


@pytest.mark.parametrize('name', NAMES)
def test_a_whole_file_needs_no_warning(whole, name):
    found, warnings = left(whole / name)
    assert same(found, SHOTS)
    assert warnings == []


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(NAMES), part=st.floats(0, 1, exclude_max=True))
@example(name='rows.db3', part=0.5)
def test_a_file_cut_anywhere_gives_its_beginning(whole, tmp_path_factory, name, part):
    path = tmp_path_factory.mktemp('cut') / name
    data = (whole / name).read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    found, warnings = left(path)
    assert same(found, SHOTS[: len(found)])
    assert warnings or len(found) == len(SHOTS)
    # Random pictures cannot be compressed: the file grows evenly with them.
    least = {'rows.db3': 0.25, 'lz4.mcap': 0.4, 'zstd.mcap': 0.4}.get(name, 0.05)
    assert len(found) >= (part - least) * len(SHOTS)


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32))
def test_altered_bytes_are_no_more_than_a_source_error(whole, tmp_path_factory, name, seed):
    draw = random.Random(seed)
    data = bytearray((whole / name).read_bytes())
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 4096))
        data[at : at + 4] = draw.choice([b'\xff' * 4, bytes(4), draw.randbytes(4)])
    path = tmp_path_factory.mktemp('altered') / name
    path.write_bytes(data)
    found, _ = left(path)
    assert all(shot.pixels.dtype == np.uint8 and shot.pixels.ndim == 3 for shot in found)


@pytest.mark.parametrize('name', ['written.mcap', 'rows.db3'])
def test_the_metadata_tells_how_many_images_are_missing(whole, tmp_path, name):
    storage = StoragePlugin.MCAP if name.endswith('mcap') else StoragePlugin.SQLITE3
    messages = [(shot.stamp, image(shot.stamp, shot.pixels)) for shot in SHOTS]
    write(tmp_path / 'bag', {'/i': (IMAGE, messages)}, storage)
    (file,) = (tmp_path / 'bag').glob(f'*{name[-5:].lstrip("s")}')
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    source = open_source(tmp_path / 'bag')
    count = len(list(source))
    assert 10 < count < 25
    assert source.expected == 30
    assert len(source.warnings) == 1
    assert f'damaged, {count} of 30 images could be read: it ' in source.warnings[0]


def test_a_folder_of_several_files_is_one_stream(whole, tmp_path):
    """As rosbag2 leaves them where a recording was not ended: no metadata, the last file cut."""
    folder = tmp_path / 'bag'
    folder.mkdir()
    for number, part in ((2, SHOTS[:10]), (9, SHOTS[10:20]), (10, SHOTS[20:])):
        write_bag(folder / f'bag_{number}.mcap', '/i', part)
    source = open_source(folder)
    assert same(list(source), SHOTS)
    assert [w for w in source.warnings if '30 images could be read: it has no metadata.yaml' in w]
    last = folder / 'bag_10.mcap'
    last.write_bytes(last.read_bytes()[:12_000])
    source = open_source(folder)
    for _ in range(2):
        found = list(source)
        assert 20 < len(found) < 30
        assert same(found, SHOTS[: len(found)])
        assert len(source.warnings) == 1
        assert 'bag_10.mcap: it ends at byte 12000' in source.warnings[0]


def test_a_file_that_the_metadata_names_is_missing(tmp_path):
    folder = tmp_path / 'bag'
    write_bag(folder, '/i', SHOTS)
    text = (folder / 'metadata.yaml').read_text().replace('- bag.mcap', '- bag.mcap\n  - b.mcap')
    (folder / 'metadata.yaml').write_text(text)
    source = open_source(folder)
    assert same(list(source), SHOTS)
    assert 'b.mcap is missing' in source.warnings[0]
    (folder / 'metadata.yaml').write_text(': [')
    source = open_source(folder)
    assert same(list(source), SHOTS)
    assert 'its metadata.yaml cannot be read' in source.warnings[0]
    (folder / 'bag.mcap').unlink()
    with pytest.raises(SourceError, match=r'Could not load YAML'):
        open_source(folder)


def test_messages_in_the_log_of_a_database_are_told_of(whole, tmp_path):
    shutil.copy(whole / 'rows.db3', tmp_path / 'open.db3')
    with closing(sqlite3.connect(tmp_path / 'open.db3')) as database:
        database.execute('PRAGMA journal_mode=WAL')
        database.execute('INSERT INTO messages SELECT 99, 1, 5, data FROM messages LIMIT 1')
        database.commit()
        for end in ('', '-wal'):
            shutil.copy(tmp_path / f'open.db3{end}', tmp_path / f'bag.db3{end}')
    found, warnings = left(tmp_path / 'bag.db3')
    assert same(found, SHOTS)
    assert '30 images could be read: bag.db3-wal holds messages that are not' in warnings[0]


@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_compressed_bags_are_read(tmp_path, mode, storage):
    folder = tmp_path / 'bag'
    writer = Writer(folder, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/i', IMAGE, typestore=STORE)
        for shot in SHOTS:
            writer.write(connection, shot.stamp, cdr(shot))
    found, warnings = left(folder)
    assert same(found, SHOTS)
    assert warnings == []
    (folder / 'metadata.yaml').unlink()
    if mode == CompressionMode.MESSAGE:
        assert same(left(folder)[0], SHOTS)
        return
    shutil.copy(next(folder.iterdir()), tmp_path)
    with pytest.raises(SourceError, match='compressed as a whole'):
        open_source(next(tmp_path.glob('*.zstd')))


def test_a_compressed_file_that_is_cut_is_an_error(tmp_path):
    folder = tmp_path / 'bag'
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/i', IMAGE, typestore=STORE)
        writer.write(connection, SECOND, cdr(SHOTS[0]))
    (file,) = folder.glob('*.zstd')
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r'bag\.mcap\.zstd: a damaged compressed file'):
        open_source(folder)


def test_an_mcap_of_another_writer_is_read(tmp_path):
    """Tools that convert leave the profile empty, which rosbags refuses."""
    path = tmp_path / 'converted.mcap'
    path.write_bytes(mcap_file('zstd', profile=''))
    found, warnings = left(path)
    assert same(found, SHOTS)
    assert warnings == []


def test_a_ros_1_bag_is_read(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    with rosbag1.Writer(tmp_path / 'old.bag') as writer:
        connection = writer.add_connection('/i', IMAGE, typestore=store)
        for number, shot in enumerate(SHOTS):
            time = types['builtin_interfaces/msg/Time'](*divmod(shot.stamp, SECOND))
            header = types['std_msgs/msg/Header'](number, time, 'camera')
            height, width, _ = shot.pixels.shape
            message = types[IMAGE](
                header, height, width, 'rgb8', 0, 3 * width, shot.pixels.reshape(-1)
            )
            writer.write(connection, shot.stamp, store.serialize_ros1(message, IMAGE))
    found, warnings = left(tmp_path / 'old.bag')
    assert same(found, SHOTS)
    assert warnings == []


def test_reasons_are_told_once_with_their_number(tmp_path):
    broken = [image(i, encoding='8UC1') if i % 2 else image(i, step=i) for i in range(1, 9)]
    messages = [(i, message) for i, message in enumerate(broken, 1)]
    messages.append((10, image(10 * SECOND)))
    write(
        tmp_path / 'bag',
        {'/i': (IMAGE, messages), '/t': ('std_msgs/msg/String', [(1, text('a'))])},
    )
    source = open_source(tmp_path / 'bag', 'i')
    for _ in range(2):
        assert [shot.stamp for shot in source] == [10 * SECOND]
        assert len(source.warnings) == 2
        assert '4 messages left out: encoding "8UC1" is not supported' in source.warnings[0]
        assert '4 messages left out: step is 2 bytes' in source.warnings[1]
