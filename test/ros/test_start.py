"""The node as a process: how it starts, ends, and says why it cannot."""

import signal
import subprocess
import time

import pytest
from conftest import node_command


def run_node(*arguments):
    return subprocess.run(node_command(*arguments), capture_output=True, text=True, timeout=60)


def test_sigterm_at_any_time_is_a_clean_end(checkpoint):
    for delay in (1.0, 2.0, 3.0):
        command = node_command('-p', f'model:={checkpoint}')
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(delay)
        process.terminate()
        _, log = process.communicate(timeout=20)
        assert process.returncode in (0, -15), log
        assert 'Traceback' not in log


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_again_kill_nothing(number):
    """As launch without a terminal and systemd send them: to all, and then to each."""
    process = subprocess.Popen(node_command(), stderr=subprocess.PIPE, text=True)
    assert any('the node is active' in line for line in process.stderr)
    while process.poll() is None:
        process.send_signal(number)
        time.sleep(0.005)
    assert process.returncode == 0, process.stderr.read()


def test_a_device_that_is_not_there_is_one_line(checkpoint):
    result = run_node('-p', f'model:={checkpoint}', '-p', 'device:=cuda:77')
    assert result.returncode == 1
    assert 'infinitevl_node]: device "cuda:77" cannot be used' in result.stderr
    assert 'Traceback' not in result.stderr


def test_without_a_model_it_takes_the_small_one_and_says_so():
    process = subprocess.Popen(node_command(), stderr=subprocess.PIPE, text=True)
    said = []
    for line in process.stderr:
        said.append(line)
        if 'tiny' in line and 'loaded' in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert 'knows its rendered world alone' in ''.join(said)


def test_a_missing_checkpoint_is_one_line():
    result = run_node('-p', 'model:=/nowhere/model')
    assert result.returncode == 1
    assert (
        '/nowhere/model: no such checkpoint folder; the parameter "model" names a checkpoint'
        in result.stderr
    )
    assert 'Traceback' not in result.stderr


def test_a_wrong_parameter_is_one_line(checkpoint):
    result = run_node('-p', f'model:={checkpoint}', '-p', 'transport:=smoke')
    assert result.returncode == 1
    assert 'transport is "smoke", expected one of raw, compressed' in result.stderr
    result = run_node('-p', f'model:={checkpoint}', '-p', 'max_tokens:=0')
    assert result.returncode == 1
    assert 'max_tokens' in result.stderr
    assert 'Traceback' not in result.stderr


def test_who_waits_for_an_answer_at_ctrl_c_is_told(start, connect):
    node = start(caption_period=0.0, max_tokens=4096, query_timeout=100.0)
    client = connect()
    client.stream(2)
    client.wait_value('frames_taken', lambda taken: taken == 2)
    query = client.ask_async('A long story, please.')
    goal, _ = client.start_goal('Another long story, please.')
    watch, _ = client.start_watch('Is there a long story?')
    results = [handle.get_result_async() for handle in (goal, watch)]
    client.wait_value('questions_waiting', lambda waiting: waiting == 2)
    assert node.stop() == 0
    assert client.wait(query).message == 'the node is shutting down'
    for future in results:
        assert client.wait(future).result.message == 'the node is shutting down'
