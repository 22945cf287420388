"""`infinitevl to-bag` as a person runs it."""

import json
import time

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from infinitevl_ros.cli.main import main
from infinitevl_ros.media.bag_writer import write_bag
from infinitevl_ros.media.source import Shot, SourceError, open_source

SECOND = 1_000_000_000


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for i in range(12):
        pixels = np.full((48, 64, 3), (20 * i, 0, 200), np.uint8)
        # What JPEG cannot make small, so that the frames are most of the file.
        pixels[:, 48:] = np.random.default_rng(i).integers(0, 256, (48, 16, 3))
        writer.write(pixels)
    writer.release()
    return path


def to_bag(*arguments):
    return main(['to-bag', *map(str, arguments)])


@pytest.mark.parametrize('name', ['folder', 'lone.mcap'])
def test_a_bag_has_the_video_at_its_time(video, tmp_path, name):
    assert to_bag(video, tmp_path / name, '--start', '1000.5') == 0
    with AnyReader([tmp_path / name]) as reader:
        (connection,) = reader.connections
        assert (connection.topic, connection.msgcount) == ('/camera/image_raw', 12)
        assert connection.msgtype == 'sensor_msgs/msg/Image'
        for i, (one, recorded, data) in enumerate(reader.messages()):
            header = reader.deserialize(data, one.msgtype).header
            assert header.frame_id == 'camera'
            assert header.stamp.sec * SECOND + header.stamp.nanosec == recorded
            assert recorded == 1000 * SECOND + SECOND // 2 + i * SECOND // 10
    wanted = [shot.pixels for shot in open_source(video)]
    found = [shot.pixels for shot in open_source(tmp_path / name)]
    assert np.array_equal(found, wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, 'video.avi'])


def test_jpegs_go_to_their_own_topic(video, tmp_path):
    assert to_bag(video, tmp_path / 'raw.mcap', '--topic', '/i') == 0
    assert to_bag(video, tmp_path / 'jpeg.mcap', '--topic', '/i', '--compressed') == 0
    source = open_source(tmp_path / 'jpeg.mcap')
    assert source.topic == '/i/compressed'
    for one, other in zip(source, open_source(video), strict=True):
        assert np.abs(one.pixels[:, :40].astype(int) - other.pixels[:, :40]).max() < 12
    sizes = [(tmp_path / f'{name}.mcap').stat().st_size for name in ('raw', 'jpeg')]
    assert sizes[1] < sizes[0] / 2


def test_what_was_done_is_written_as_json(video, tmp_path, capsys):
    began = time.time()
    video.write_bytes(video.read_bytes()[:-5000])
    assert to_bag(video, tmp_path / 'bag', '--json', tmp_path / 'done.json') == 0
    done = json.loads((tmp_path / 'done.json').read_text())
    assert done['bag'] == str(tmp_path / 'bag')
    assert 0 < done['images'] < 12
    assert began <= done['start'] <= time.time()
    (warning,) = done['warnings']
    assert f'ends after {done["images"]} frames of the 12' in warning
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize('name', ['folder', 'lone.mcap'])
def test_a_bag_is_written_over_by_force_alone(video, tmp_path, capsys, name):
    for arguments, code in ((['--start', '1'], 0), (['--start', '2'], 2), (['--force'], 0)):
        assert to_bag(video, tmp_path / name, *arguments) == code
        assert (f'{name}: is there already' in capsys.readouterr().err) == (code == 2)
    assert next(iter(open_source(tmp_path / name))).stamp > 1000 * SECOND


def test_no_other_folder_is_written_over(video, tmp_path, capsys):
    for name in ('photos', 'photos.mcap'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'mine.txt').write_text('mine')
        assert to_bag(video, tmp_path / name, '--force') == 2
        assert 'a folder that is not a bag is there already' in capsys.readouterr().err
        assert (tmp_path / name / 'mine.txt').read_text() == 'mine'


@pytest.mark.parametrize('name', ['folder', 'lone.mcap'])
@pytest.mark.parametrize('reason', [KeyboardInterrupt, SourceError, OSError])
def test_what_is_half_written_goes_away(tmp_path, name, reason):
    def shots():
        for i in range(400):  # more than a chunk of the file
            yield Shot(i, np.zeros((48, 64, 3), np.uint8))
        raise reason

    write_bag(tmp_path / name, '/i', [Shot(7, np.zeros((4, 4, 3), np.uint8))])
    with pytest.raises(reason):
        write_bag(tmp_path / name, '/i', shots(), force=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [shot.stamp for shot in open_source(tmp_path / name)] == [7], 'the old one stays'


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['VIDEO', 'nowhere/bag'], 'nowhere/bag: no such folder to write to'),
        (['VIDEO', 'bag', '--start', 'nan'], '--start is nan, expected'),
        (['VIDEO', 'bag', '--start', str(2**31 - 0.5)], 'a stamp of 2147483648 s, but a ROS'),
        (['bag.mcap', 'bag'], 'bag.mcap: is a bag already, expected a video or images'),
        (['none.mp4', 'bag'], 'none.mp4: no such file'),
    ],
)
def test_what_is_at_fault_is_said(video, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / 'bag.mcap', '/i', [Shot(0, np.zeros((4, 4, 3), np.uint8))])
    arguments = [video if argument == 'VIDEO' else argument for argument in arguments]
    assert to_bag(*arguments) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag.mcap', 'video.avi']
