"""What others see of the node: its diagnostics and a line in the log from time to time."""

import re
import threading
import time

import torch
from conftest import TIMEOUT, counts, until
from diagnostic_msgs.msg import DiagnosticArray

from infinitevl_ros.model.weights import Weights
from infinitevl_ros.ros import diagnostics, stamps

SLOW = 0.05  # seconds


def test_diagnostics_come_once_a_second_while_frames_do(start, connect):
    """In a process as it is shipped: `host` hurries them."""
    start(caption_period=0.0)
    client, arrays = connect(), []
    client.node.create_subscription(DiagnosticArray, '/diagnostics', arrays.append, 10)
    assert until(lambda: client.stream(2) and len(arrays) >= 5)
    first, last = (stamps.nanoseconds(arrays[i].header.stamp) for i in (0, 4))
    assert 0.8 < (last - first) / 4 / stamps.NANOSECONDS < 1.3


def test_diagnostics_tell_what_frames_took_and_became(host, connect, monkeypatch):
    node = host(caption_period=0.0)
    client = connect()
    ingest = node.engine.ingest_together
    monkeypatch.setattr(
        node.engine, 'ingest_together', lambda frames: time.sleep(SLOW) or ingest(frames)
    )
    assert client.values['frame_ms'] == '0.0'
    for number in range(1, 5):
        began = time.monotonic()
        client.publish()
        assert until(lambda n=number: counts(node).taken == n)
    wall = time.monotonic() - began
    client.wait_value('frames_taken', lambda taken: taken == 4)
    assert until(lambda: SLOW * 1e3 <= float(client.values['frame_ms']) <= wall * 1e3)

    # With the engine busy, the newest of three waits and the others are dropped.
    free = threading.Event()
    node.scheduler.call(lambda: free.wait(TIMEOUT))
    for number in range(5, 8):
        client.publish()
        assert until(lambda n=number: counts(node).received == n)
    client.wait_value('frames_dropped', lambda dropped: dropped == 2)
    assert (client.values['frames_received'], client.values['frames_taken']) == ('7', '4')
    free.set()
    client.wait_value('frames_taken', lambda taken: taken == 5)
    client.publish(client.image(encoding='yuv9'))
    client.wait_value('frames_failed', lambda failed: failed == 1)
    ended = {name: int(number) for name, number in client.values.items() if 'frames_' in name}
    assert ended == {
        'frames_received': 8,
        'frames_taken': 5,
        'frames_dropped': 2,
        'frames_skipped': 0,
        'frames_failed': 1,
        'frames_in_memory': 5,
    }
    memory = node.cameras[0].memory
    nbytes = sum(tensor.nbytes for tensor in memory.snapshot().tensors.values())
    assert client.values['memory_bytes'] == str(nbytes)


def test_diagnostics_tell_how_long_answers_took_and_how_many_wait(host, connect):
    node = host(caption_period=0.0, max_tokens=8)
    client = connect()
    client.stream(1)
    client.wait_value('frames_taken', lambda taken: taken == 1)
    assert (client.values['questions_answered'], client.values['answer_ms']) == ('0', '0')
    free, began = threading.Event(), time.monotonic()
    node.scheduler.call(lambda: free.wait(TIMEOUT))
    replies = [client.ask_async(question) for question in ('What?', 'Where?')]
    client.wait_value('questions_waiting', lambda waiting: waiting == 2)
    waited, seen = time.monotonic(), len(client.statuses)
    assert until(lambda: len(client.statuses) > seen + 1)
    held = time.monotonic() - waited
    free.set()
    replies = [client.wait(reply) for reply in replies]
    wall = time.monotonic() - began
    client.wait_value('questions_answered', lambda answered: answered == 2)
    client.wait_value('questions_waiting', lambda waiting: waiting == 0)
    assert until(lambda: client.values['answer_ms'] == f'{replies[1].seconds * 1e3:.0f}')
    # Counted from the question's arrival: what it waited is part of it.
    assert round(held * 1e3) <= int(client.values['answer_ms']) <= round(wall * 1e3)


def test_the_memory_of_the_gpu_in_bytes_only_where_there_is_one(host, connect, monkeypatch):
    """What torch would tell stands in; all from there to the message is real."""
    host(caption_period=0.0, device='cpu')
    client = connect()
    assert client.values['device'] == 'cpu'
    assert 'gpu_memory_bytes' not in client.values
    card = torch.device('cuda', 1)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', {card: 9_599_923_712}.__getitem__)
    monkeypatch.setattr(Weights, 'device', card)
    assert until(lambda: client.values['device'] == 'cuda:1')
    assert client.wait_value('gpu_memory_bytes', lambda used: used > 0) == 9_599_923_712


def test_silence_of_the_camera_is_a_warning(host, connect):
    host(caption_period=0.0)
    client = connect()
    client.stream(3)
    assert until(lambda: client.statuses[-1].message == 'streaming')
    assert until(lambda: 'no image on /image for' in client.statuses[-1].message, timeout=10)
    assert client.statuses[-1].level == b'\x01'
    client.stream(3)
    assert until(lambda: client.statuses[-1].message == 'streaming')


def test_a_line_in_the_log_from_time_to_time(host, connect, monkeypatch, capfd):
    assert diagnostics.LOG_PERIOD == 60.0
    monkeypatch.setattr(diagnostics, 'LOG_PERIOD', 1.0)
    host(caption_period=0.0, max_tokens=4)
    client = connect()
    client.stream(4)
    client.wait_value('frames_taken', lambda taken: taken == 4)
    assert client.ask('What?').success
    log = ''

    def lines():
        nonlocal log
        log += capfd.readouterr().err
        return re.findall(
            r'/image: (\d+) frames taken in the last minute, 0 dropped, 0 refused, [0-9.]+ ms a '
            r'frame, (\d+) in memory; (\d+) answers, the last in [0-9.]+ s',
            log,
        )

    assert until(lambda: lines() and lines()[-1] == ('0', '4', '0')), log
    taken, _, answered = zip(*lines(), strict=True)
    assert (sum(map(int, taken)), sum(map(int, answered))) == (4, 1)
    log = ''
    for step in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert client.change_state(step)
    assert until(lambda: lines() and lines()[-1] == ('0', '0', '0')), log
    assert 'taken in the last minute' in log
    assert '-' not in ''.join(re.findall(r': (\S+) frames taken in the last minute', log))


def test_diagnostics_before_the_first_image(host, connect):
    host()
    client = connect()
    status = client.statuses[-1]
    assert status.level == b'\x01'
    assert 'no image on /image yet' in status.message
    assert until(lambda: '(1 publishers)' in client.statuses[-1].message)
    client.stream(1)
    assert until(lambda: client.statuses[-1].level == b'\x00')
