"""`infinitevl live` as a person starts and ends it."""

import signal
import socket
import time
import urllib.request
from unittest.mock import Mock

import cv2
import pytest
from processes import live, patrol_video

from infinitevl_ros.cli.main import main
from infinitevl_ros.live import server
from infinitevl_ros.live.file_feed import FileFeed
from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.world.patrol import story


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('live') / 'patrol.mp4'
    patrol_video(path, seconds=2)
    return path


def test_a_port_in_use_is_said_in_a_line(video, capsys):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert main(['live', str(video), '--port', str(port)]) == 2
    line = f'port {port} of 127.0.0.1 is in use already; choose another with --port'
    assert capsys.readouterr().err == f'infinitevl live: {line}\n'


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['nothing.mp4'], 'nothing.mp4: no such file'),
        (['/dev/null'], '/dev/null: OpenCV gets no picture from this device'),
        ([__file__], 'not a video'),
        (['patrol.mp4', '--node', '/node'], '--node is for a running node, without VIDEO'),
        (['--loop'], '--loop is for a file or device, give VIDEO'),
        (['--node', 'no node'], '--node no node'),
        (['--camera', 'front/left?'], 'front/left?'),
        (['--port', '70000'], '--port is 70000, expected 0'),
        (['--host', 'no.such.host.invalid'], '--host no.such.host.invalid: '),
        (['--host', '192.0.2.7'], 'cannot serve on 192.0.2.7, port 0: '),
        (['VIDEO', '--model', 'no_such_folder'], 'no_such_folder'),
        (['VIDEO', '--topic', '/image'], 'not a bag'),
    ],
)
def test_arguments_at_fault_are_said_in_a_line(video, arguments, words, capsys):
    arguments = [str(video) if word == 'VIDEO' else word for word in arguments]
    assert main(['live', '--port', '0', *arguments]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('infinitevl live: ')
    assert words in line


def test_it_is_for_this_machine_alone_and_ends_when_told_to(video):
    with live(video) as server:
        with urllib.request.urlopen(server.url) as response:
            assert response.status == 200
        assert server.line.startswith('patrol.mp4: http://127.0.0.1:')
        # The port is still free on every other address.
        socket.create_server(('127.0.0.2', server.port)).close()
        code, seconds = server.end(signal.SIGTERM)
        assert (code, seconds < 2) == (0, True)
        assert 'Warning' not in server.errors


@pytest.mark.parametrize(('host', 'warned'), [('0.0.0.0', True), ('localhost', False)])
def test_others_are_let_in_only_with_a_warning(video, host, warned, capsys):
    arguments = str(video), '--host', host, '--port', '0', '--model', 'no_such_folder'
    assert main(['live', *arguments]) == 2
    warning = f'anyone who reaches {host} can watch and ask'
    assert (warning in capsys.readouterr().err) == warned


def test_the_socket_listens_where_it_is_told_to():
    with server.listen('127.0.0.1', 0) as listener:
        assert listener.getsockname()[0] == '127.0.0.1'
    with server.listen('::1', 0) as listener:
        assert listener.getsockname()[0] == '::1'


@pytest.mark.parametrize('loop', [False, True])
def test_a_damaged_file_is_warned_of_in_every_pass(tmp_path, loop):
    whole, damaged = tmp_path / 'patrol.avi', tmp_path / 'cut.avi'
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*'MJPG'), 15, (112, 112))
    for pixels, _ in story(seed=3, frames=20, size=112):
        writer.write(pixels[..., ::-1])
    writer.release()
    damaged.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    feed = FileFeed(damaged, default_checkpoint(), 'cpu', loop=loop)
    board = Mock()
    feed.start(board)
    try:
        deadline = time.monotonic() + 60
        while 'cut.avi: ' not in feed.state().message:
            assert time.monotonic() < deadline, feed.state()
            time.sleep(0.05)
        assert feed.state().level == 'wait'
        words = 'streaming; ' if loop else 'has ended, and can still be asked about; '
        assert words in feed.state().message
    finally:
        feed.close()
