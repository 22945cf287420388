"""Videos, bags and images from files: whole, damaged, and something else."""

import itertools
import shutil
import sqlite3

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from infinitevl_ros.media.bag_writer import write_bag
from infinitevl_ros.media.source import Shot, SourceError, open_source

SECOND = 1_000_000_000
STORE = get_typestore(Stores.ROS2_JAZZY)


def shots(count=6, start=100):
    random = np.random.default_rng(0)
    return [
        Shot(start * SECOND + i * SECOND // 10, random.integers(0, 256, (24, 32, 3), np.uint8))
        for i in range(count)
    ]


def same(found, wanted):
    return [s.stamp for s in found] == [s.stamp for s in wanted] and all(
        np.array_equal(one.pixels, other.pixels) for one, other in zip(found, wanted, strict=True)
    )


def write(folder, topics, storage=StoragePlugin.MCAP):
    """A bag with these topics: name -> (type, [(time, message)])."""
    with Writer(folder, version=9, storage_plugin=storage) as writer:
        for name, (kind, messages) in topics.items():
            connection = writer.add_connection(name, kind, typestore=STORE)
            for time, message in messages:
                writer.write(connection, time, STORE.serialize_cdr(message, kind))
    return folder


def image(stamp=0, pixels=None, **changes):
    pixels = np.zeros((4, 6, 3), np.uint8) if pixels is None else pixels
    types = STORE.types
    time = types['builtin_interfaces/msg/Time'](*divmod(stamp, SECOND))
    header = types['std_msgs/msg/Header'](time, 'camera')
    height, width, _ = pixels.shape
    fields = {'encoding': 'rgb8', 'is_bigendian': 0, 'step': 3 * width, **changes}
    return types['sensor_msgs/msg/Image'](header, height, width, data=pixels.reshape(-1), **fields)


def text(words):
    return STORE.types['std_msgs/msg/String'](words)


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bags') / 'bag'
    assert write_bag(folder, '/camera/image_raw', shots()) == 6
    return folder


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('videos') / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for i in range(12):
        pixels = np.full((48, 64, 3), (20 * i, 0, 200), np.uint8)
        # What JPEG cannot make small, so that the frames are most of the file.
        pixels[:, 48:] = np.random.default_rng(i).integers(0, 256, (48, 16, 3))
        writer.write(pixels)
    writer.release()
    return path


def test_a_bag_is_what_was_written(bag):
    for path in (bag, next(bag.glob('*.mcap'))):
        source = open_source(path)
        assert (source.kind, source.topic, source.expected) == ('bag', '/camera/image_raw', 6)
        for _ in range(2):
            assert same(list(source), shots())
        assert source.warnings == []


def test_a_bag_of_jpegs_and_one_in_sqlite(tmp_path):
    smooth = [Shot(s.stamp, cv2.GaussianBlur(s.pixels, (0, 0), 4)) for s in shots()]
    write_bag(tmp_path / 'jpeg', '/camera', smooth, compressed=True)
    source = open_source(tmp_path / 'jpeg', '/camera/compressed')
    found = list(source)
    assert [s.stamp for s in found] == [s.stamp for s in smooth]
    assert np.abs(found[0].pixels.astype(int) - smooth[0].pixels).max() < 12
    images = [(s.stamp, image(s.stamp, s.pixels)) for s in shots()]
    topics = {'/i': ('sensor_msgs/msg/Image', images)}
    folder = write(tmp_path / 'sqlite', topics, StoragePlugin.SQLITE3)
    for path in (folder, next(folder.glob('*.db3'))):
        assert same(list(open_source(path)), shots())


def test_stamps_are_the_headers_else_the_recordings(tmp_path):
    images = [(70 * SECOND, image(5 * SECOND)), (71 * SECOND, image(0))]
    write(tmp_path / 'bag', {'/i': ('sensor_msgs/msg/Image', images)})
    assert [s.stamp for s in open_source(tmp_path / 'bag')] == [5 * SECOND, 71 * SECOND]


def test_topics_are_listed_when_one_must_be_named(tmp_path):
    images = ('sensor_msgs/msg/Image', [(1, image())])
    write(tmp_path / 'two', {'/a': images, '/b': images, '/c': ('std_msgs/msg/String', [])})
    with pytest.raises(
        SourceError, match=r'2 topics have images, name one \(--topic\): /a .*, /b'
    ):
        open_source(tmp_path / 'two')
    assert len(list(open_source(tmp_path / 'two', '/b'))) == 1
    with pytest.raises(SourceError, match=r'no topic /d; it has /a \(sensor_msgs/msg/Image, 1'):
        open_source(tmp_path / 'two', '/d')
    with pytest.raises(SourceError, match='/c has messages of std_msgs/msg/String, expected'):
        open_source(tmp_path / 'two', '/c')
    write(tmp_path / 'none', {'/c': ('std_msgs/msg/String', [(1, text('a'))])})
    with pytest.raises(SourceError, match=r'a bag without images; it has /c \(std_msgs'):
        open_source(tmp_path / 'none')
    empty = {'/i': ('sensor_msgs/msg/Image', []), '/c': ('std_msgs/msg/String', [(1, text('a'))])}
    write(tmp_path / 'empty', empty)
    for topic in ('', '/i'):
        with pytest.raises(SourceError, match=r'no message on /i; it has .*/c \(std_msgs'):
            open_source(tmp_path / 'empty', topic)


def test_files_of_a_folder_that_lack_the_topic_add_nothing(tmp_path):
    """Without metadata each file is read by itself."""
    folder = tmp_path / 'bag'
    folder.mkdir()
    images = [(i, image(i + 1)) for i in range(5)]
    words = [(i, text('w')) for i in range(4)]
    for name, topic, kind, messages in (
        ('p_0', '/image', 'sensor_msgs/msg/Image', images[:3]),
        ('p_1', '/other', 'sensor_msgs/msg/Image', images),
        ('p_2', '/words', 'std_msgs/msg/String', words),
    ):
        write(tmp_path / name, {topic: (kind, messages)})
        (tmp_path / name / f'{name}.mcap').rename(folder / f'{name}.mcap')
    source = open_source(folder, '/image')
    assert len(list(source)) == 3
    assert not any('left out' in warning for warning in source.warnings)
    assert all('3 of 3' in warning for warning in source.warnings)


def test_a_folder_may_be_named_like_a_bag_of_ros_1(bag, tmp_path):
    shutil.copytree(bag, tmp_path / 'run.bag')
    assert len(list(open_source(tmp_path / 'run.bag'))) == 6


def test_messages_without_a_picture_are_counted(tmp_path):
    images = [(1, image(1)), (2, image(2, step=1)), (3, image(3, step=1)), (4, image(4))]
    write(tmp_path / 'bag', {'/i': ('sensor_msgs/msg/Image', images)})
    source = open_source(tmp_path / 'bag')
    assert [s.stamp for s in source] == [1, 4]
    assert len(source.warnings) == 1
    assert '2 messages left out: step is 1 bytes' in source.warnings[0]


def prefix(path, wanted, torn=0):
    """What is left of a damaged bag: the beginning, or a clear error."""
    try:
        source = open_source(path)
    except SourceError:
        return 0
    found = list(source)
    whole = max(0, len(found) - torn)
    assert same(found[:whole], wanted[:whole])
    if len(found) < len(wanted):
        assert source.warnings, 'what is missing is told'
    return len(found)


@settings(deadline=None, max_examples=60)
@given(part=st.floats(0, 1, exclude_max=True))
def test_an_mcap_that_breaks_off_anywhere_gives_its_beginning(bag, tmp_path_factory, part):
    data = next(bag.glob('*.mcap')).read_bytes()
    path = tmp_path_factory.mktemp('cut') / 'cut.mcap'
    path.write_bytes(data[: int(len(data) * part)])
    prefix(path, shots())


def test_most_of_a_bag_that_lost_its_end_is_read(tmp_path):
    many = shots(60)
    write_bag(tmp_path / 'bag', '/i', many)
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])
    for path in (tmp_path / 'bag', file):
        assert 30 <= prefix(path, many) < 60


def test_a_database_that_breaks_off_gives_its_beginning(tmp_path):
    many = shots(60)
    images = [(s.stamp, image(s.stamp, s.pixels)) for s in many]
    folder = write(
        tmp_path / 'bag', {'/i': ('sensor_msgs/msg/Image', images)}, StoragePlugin.SQLITE3
    )
    (file,) = folder.glob('*.db3')
    data = file.read_bytes()
    found = []
    for part in (0.0, 0.1, 0.5, 0.8, 0.95):
        file.write_bytes(data[: int(len(data) * part)])
        found.append(prefix(file, many))
    assert max(found) > 20
    file.write_bytes(data)
    with sqlite3.connect(file) as database:
        database.execute('UPDATE messages SET data = 7 WHERE rowid = 3')
    database.close()
    prefix(file, [many[i] for i in range(60) if i != 2])


def test_a_video_has_its_frames_at_its_rate(video):
    source = open_source(video)
    assert (source.kind, source.rate, source.expected) == ('video', 10, 12)
    found = list(source)
    assert [s.stamp for s in found] == [i * SECOND // 10 for i in range(12)]
    left = found[0].pixels[:, :40]
    assert left[..., 0].min() > 150 > 60 > left[..., 2].max()
    assert source.warnings == []


def test_a_video_that_breaks_off_says_how_much_is_missing(video, tmp_path):
    data = video.read_bytes()
    path = tmp_path / 'cut.avi'
    path.write_bytes(data[: len(data) * 3 // 4])
    source = open_source(path)
    count = len(list(source))
    assert 0 < count < 12
    assert source.warnings == [f'{path}: ends after {count} frames of the 12 that it says it has']


@settings(deadline=None, max_examples=60)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_video_that_breaks_off_anywhere_gives_its_beginning(video, tmp_path_factory, part):
    data = video.read_bytes()
    path = tmp_path_factory.mktemp('cut') / 'cut.avi'
    path.write_bytes(data[: int(len(data) * part)])
    # Of its last frame a part may be there.
    prefix(path, list(open_source(video)), torn=1)


def test_images_are_a_second_apart(tmp_path):
    for name in ('10.png', '9.jpg', 'note.txt'):
        if name.endswith('txt'):
            (tmp_path / name).write_text('no image')
        else:
            cv2.imwrite(str(tmp_path / name), np.full((9, 8, 3), 50, np.uint8))
    source = open_source(tmp_path)
    assert [s.stamp for s in source] == [0, SECOND]
    assert [s.stamp for s in open_source(tmp_path / '10.png')] == [0]
    (tmp_path / '9.jpg').write_bytes(b'\xff\xd8\xff nothing')
    source = open_source(tmp_path)
    assert [s.stamp for s in source] == [SECOND]
    assert '1 file left out: ' in source.warnings[0]
    assert '9.jpg' in source.warnings[0]


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        ('none.mp4', None, 'no such file'),
        ('text.mp4', b'not a video', 'not a video that OpenCV can read'),
        ('empty.mcap', b'', 'a bag without images that can be read'),
        ('text.db3', b'no database', 'a bag without images that can be read'),
        ('old.bag', b'#ROSBAG V2.0', 'a ROS 1 bag that cannot be read'),
        ('bag_0.mcap.zstd', b'', 'compressed as a whole: give its folder'),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said):
        list(open_source(tmp_path / name))


def test_a_folder_of_nothing_and_a_topic_of_a_video(tmp_path, video):
    with pytest.raises(SourceError, match=r'neither a bag .* nor a folder of images'):
        open_source(tmp_path)
    with pytest.raises(SourceError, match='not a bag, so there is no topic /i in it'):
        open_source(video, '/i')


@settings(deadline=None, max_examples=40)
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b'', b'\x89MCAP0\r\n', b'SQLite format 3\0']),
    suffix=st.sampled_from(['.mcap', '.db3']),
)
def test_any_bytes_are_a_source_error(tmp_path_factory, data, start, suffix):
    path = tmp_path_factory.mktemp('any') / f'file{suffix}'
    path.write_bytes(start + data)
    with pytest.raises(SourceError):
        list(itertools.islice(open_source(path), 3))
