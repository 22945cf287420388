"""What others see of the node: its diagnostics and a line in the log from time to time."""

import re

from conftest import until

from infinitevl_ros.ros import diagnostics


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
