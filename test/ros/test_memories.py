"""Memories on the disk: saved, loaded, saved by themselves, and there again after a restart."""

import os
import shutil
import threading
import time

import numpy as np
import pytest
from conftest import SECOND, counts, until
from safetensors import SafetensorError

from infinitevl_ros.cli.random_checkpoint import write_random_checkpoint
from infinitevl_ros.engine import Snapshot, snapshot

QUIET = {'caption_period': 0.0, 'max_tokens': 8}


def autosave(node, folder):
    fingerprint = node.engine.weights.fingerprint
    return folder / f'autosave.infinitevl_node.{fingerprint}.safetensors'


def stream(node, client, frames):
    """Frames that all are taken."""
    before = counts(node).taken
    for number in range(1, frames + 1):
        client.publish()
        assert until(lambda n=number: counts(node).taken == before + n)


def test_a_memory_outlives_the_process_that_made_it(start, connect, tmp_path):
    """Saved, killed, started again, loaded: the same answer to the same question."""
    node = start(**QUIET, memory_dir=tmp_path)
    client = connect()
    client.stream(5)
    client.wait_value('frames_taken', lambda taken: taken == 5)
    answer = client.ask('What did you see?')
    reply = client.save('before lunch')
    assert not reply.success
    assert '"before lunch" is not a name' in reply.message
    reply = client.save('lunch')
    assert reply.success
    assert reply.paths == [str(tmp_path / 'lunch.safetensors')]
    assert reply.message == f'5 frames to {tmp_path}/lunch.safetensors'
    node.process.kill()
    node.process.wait()
    node.process.returncode = 0  # it was this test that ended it
    client.close()

    start(**QUIET, memory_dir=tmp_path)
    client = connect()
    assert client.ask('What did you see?').message.startswith('no frame seen yet')
    reply = client.load('lunch')
    assert (reply.success, reply.message) == (True, 'remembering 5 frames')
    again = client.ask('What did you see?')
    assert again.answer == answer.answer
    assert (again.frames_seen, again.first_stamp) == (5, answer.first_stamp)
    assert again.last_stamp == answer.last_stamp
    client.stream(1)
    client.wait_value('frames_in_memory', lambda frames: frames == 6)


def test_cameras_are_saved_together_or_one_by_one(host, connect, tmp_path):
    node = host(**QUIET, cameras=['front', 'rear'], memory_dir=str(tmp_path / 'new' / 'folder'))
    front = connect(camera='front', image_topic='front/image')
    stream(node, front, 3)
    reply = front.save('all')
    names = ['all.front.safetensors', 'all.rear.safetensors']
    assert reply.paths == [str(tmp_path / 'new' / 'folder' / name) for name in names]
    assert front.save('one', camera='front').paths[0].endswith('one.front.safetensors')
    stream(node, front, 2)
    assert front.load('one').message.endswith('one.rear.safetensors: no such file')
    assert front.ask('What?').frames_seen == 5, 'all or nothing'
    assert front.load('one', camera='front').message == 'remembering 3 frames'
    assert front.ask('What?').frames_seen == 3
    assert 'expected one of front, rear' in front.load('one', camera='top').message


@pytest.mark.parametrize(
    'name', ['', '.', '..', '../up', '/etc/passwd', 'a/b', '.hidden', 'a\nb', 'ü', 'x' * 101]
)
def test_names_stay_inside_the_folder(host, connect, tmp_path, name):
    host(**QUIET, memory_dir=str(tmp_path / 'memories'))
    client = connect()
    for reply in (client.save(name), client.load(name)):
        assert not reply.success
        assert 'is not a name for a memory' in reply.message
    assert not (tmp_path / 'memories').exists()


def test_what_cannot_be_loaded_changes_nothing(host, connect, tmp_path):
    node = host(**QUIET, memory_dir=str(tmp_path))
    client = connect()
    stream(node, client, 2)
    (tmp_path / 'broken.safetensors').write_bytes(b'nothing')
    assert 'not a readable memory' in client.load('broken').message
    assert 'no such file' in client.load('never').message
    assert client.save('good').success
    (tmp_path / 'blocked.safetensors').mkdir()
    assert 'blocked.safetensors' in client.save('blocked').message
    assert client.ask('What?').frames_seen == 2
    shutil.rmtree(tmp_path)
    tmp_path.write_text('a file where the folder was')
    assert not client.save('good').success
    assert client.ask('What?').frames_seen == 2
    tmp_path.unlink()


def test_memories_can_be_loaded_before_the_first_frame_and_while_inactive(host, connect, tmp_path):
    node = host(**QUIET, memory_dir=str(tmp_path))
    client = connect()
    stream(node, client, 2)
    assert client.save('two').success
    assert client.change_state('deactivate')
    assert client.reset().message == 'forgot 2 frames'
    assert client.load('two').message == 'remembering 2 frames'
    assert client.change_state('activate')
    assert client.ask('What?').frames_seen == 2
    assert client.change_state('deactivate')
    assert client.change_state('cleanup')
    for reply in (client.save('none'), client.load('two'), client.reset()):
        assert not reply.success
        assert reply.message.startswith('the node is unconfigured')


def test_a_robot_wakes_up_remembering(host, connect, tmp_path):
    settings = {**QUIET, 'memory_dir': str(tmp_path), 'restore': True, 'autosave_period': 1.0}
    node = host(**settings)
    client = connect()
    stream(node, client, 3)
    file = autosave(node, tmp_path)
    assert until(file.exists)
    assert Snapshot.read(file).metadata['frames'] == '3'
    stream(node, client, 2)
    assert client.change_state('deactivate'), 'which saves once more'
    assert Snapshot.read(file).metadata['frames'] == '5'
    assert client.change_state('activate')
    assert client.ask('What?').frames_seen == 5
    assert client.change_state('deactivate')
    assert client.change_state('cleanup')
    assert client.change_state('configure')
    assert client.change_state('activate')
    assert client.ask('What?').frames_seen == 5
    assert client.reset().success
    assert until(lambda: not file.exists())
    assert client.change_state('deactivate')
    assert client.change_state('cleanup')
    assert client.change_state('configure')
    assert client.change_state('activate')
    assert not client.ask('What?').success, 'what was forgotten is not restored'


def test_every_model_and_node_goes_on_from_its_own_autosave(host, tmp_path, checkpoint):
    """Without a client, which would find the services of all these nodes."""
    settings = {**QUIET, 'memory_dir': str(tmp_path), 'restore': True, 'autosave_period': 86400.0}
    other = write_random_checkpoint(tmp_path / 'other', seed=2)
    pixels = np.zeros((60, 80, 3), np.uint8)
    for model, before in ((checkpoint, 0), (other, 0), (checkpoint, 2), (other, 2)):
        node = host(**settings, model=str(model))
        assert until(lambda node=node: node.state == 'active')
        memory = node.cameras[0].memory
        assert memory.frames == before
        for number in range(0 if before else 2):
            node.scheduler.offer(memory, pixels, number * SECOND)
            assert until(lambda n=number, node=node: counts(node).taken == n + 1)
        assert node.transition('shutdown')
    robot = host(**settings, namespace='robot1')
    assert until(lambda: robot.state == 'active')
    assert robot.cameras[0].memory.frames == 0


def test_an_autosave_that_cannot_be_used_is_set_aside(host, tmp_path, capfd):
    settings = {**QUIET, 'memory_dir': str(tmp_path), 'restore': True}
    node = host(**settings, autostart=False)
    assert node.transition('configure')
    autosave(node, tmp_path).write_text('broken')
    assert node.transition('activate')
    assert node.cameras[0].memory.frames == 0
    assert autosave(node, tmp_path).with_suffix('.refused').read_text() == 'broken'
    assert 'nothing restored, kept as' in capfd.readouterr().err


def test_a_full_disk_stops_nothing(host, connect, tmp_path, monkeypatch, capfd):
    def full(*_):
        raise SafetensorError('I/O error: No space left on device')

    monkeypatch.setattr(snapshot, 'save_file', full)
    node = host(**QUIET, memory_dir=str(tmp_path), autosave_period=1.0)
    client = connect()
    stream(node, client, 2)
    said = []
    assert until(lambda: said.append(capfd.readouterr().err) or 'autosave failed' in ''.join(said))
    assert 'No space left on device' in ''.join(said)
    assert client.change_state('deactivate')
    assert client.change_state('activate')
    assert client.ask('What?').frames_seen == 2


def test_a_slow_disk_keeps_neither_a_reset_nor_more_than_one_autosave(
    host, connect, tmp_path, monkeypatch
):
    begun, go_on = [], threading.Event()
    write = Snapshot.write

    def slow(self, path):
        begun.append(path)
        go_on.wait(20)
        write(self, path)

    monkeypatch.setattr(Snapshot, 'write', slow)
    node = host(**QUIET, memory_dir=str(tmp_path), autosave_period=0.5)
    client = connect()
    stream(node, client, 2)
    assert until(lambda: begun)
    began = time.monotonic()
    assert client.reset().message == 'forgot 2 frames'
    assert time.monotonic() - began < 5
    time.sleep(3)
    assert len(begun) == 1
    assert node._memories._thread._work_queue.qsize() <= 1  # the file is to be removed
    go_on.set()
    assert until(lambda: not autosave(node, tmp_path).exists())


def test_an_autosave_that_fails_is_told_of_and_frames_go_on(host, connect, tmp_path, capfd):
    (tmp_path / 'file').write_text('')
    node = host(**QUIET, memory_dir=str(tmp_path / 'file'), autosave_period=0.5)
    client = connect()
    stream(node, client, 2)
    said = []
    assert until(lambda: said.append(capfd.readouterr().err) or 'autosave failed' in ''.join(said))
    stream(node, client, 2)


def test_the_folder_is_below_ros_home(host, monkeypatch, tmp_path):
    monkeypatch.setenv('ROS_HOME', str(tmp_path))
    node = host(autostart=False)
    assert node._memories.folder == tmp_path / 'infinitevl'
    monkeypatch.delenv('ROS_HOME')
    assert str(host(autostart=False)._memories.folder) == os.path.expanduser('~/.ros/infinitevl')


def test_stamps_of_a_loaded_memory_do_not_stop_captions(host, connect, tmp_path):
    """What was saved is of another time: captions begin anew with the next frame."""
    node = host(caption_period=1.0, max_tokens=4, memory_dir=str(tmp_path))
    client = connect()
    stream(node, client, 2)
    assert client.save('two').success
    assert client.load('two').success
    for number, second in enumerate((5, 6, 7), start=3):
        client.publish(client.image(stamp=second * SECOND))
        assert until(lambda n=number: counts(node).taken == n)
        assert until(lambda: not node.scheduler._captions)
    assert until(lambda: len(client.captions) == 2)
    assert [c.last_stamp.sec for c in client.captions] == [6, 7]
