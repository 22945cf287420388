"""The managed node: its states, what it does in each, and how it fails."""

import gc
import threading
import time
import weakref

import pytest
from conftest import RunningNode, until
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters

from infinitevl_ros.ros import node as node_module


def test_the_whole_walk(host, connect):
    node = host(autostart=False, caption_period=0.0, max_tokens=4)
    client = connect(ready=False)
    client.wait_state('unconfigured')
    refused = client.ask('Anybody?')
    assert not refused.success
    assert refused.message == (
        'the node is unconfigured; next: ros2 lifecycle set /infinitevl_node configure'
    )
    assert not client.change_state('activate')
    assert client.change_state('configure')
    assert client.get_state() == 'inactive'
    assert 'next: ros2 lifecycle set /infinitevl_node activate' in client.ask('And now?').message
    assert client.change_state('activate')
    client.wait_ready()
    client.stream(3)
    client.wait_value('frames_in_memory', lambda frames: frames == 3)
    answer = client.ask('What did you see?')
    assert answer.success, answer.message

    assert client.change_state('deactivate')
    assert until(lambda: not client.publisher.get_subscription_count())
    client.wait_state('inactive')
    assert client.values['frames_in_memory'] == '3'
    assert client.change_state('activate')
    client.wait_ready()
    assert client.ask('What did you see?').answer == answer.answer
    client.stream(1)
    client.wait_value('frames_in_memory', lambda frames: frames == 4)

    engine = weakref.ref(node.engine)
    assert client.change_state('deactivate')
    assert client.change_state('cleanup')
    assert client.get_state() == 'unconfigured'
    gc.collect()
    assert engine() is None, 'cleanup gives everything back'
    assert client.change_state('configure')
    assert client.change_state('activate')
    client.wait_ready()
    assert client.ask('What did you see?').message.startswith('no frame seen yet')
    assert client.change_state('shutdown')
    assert client.get_state() == 'finalized'
    assert not client.change_state('configure')


def test_services_answer_while_a_model_is_loading(host, connect, monkeypatch):
    loading, go_on = threading.Event(), threading.Event()
    load = node_module.StreamingEngine.from_checkpoint

    def slow(*arguments):
        loading.set()
        go_on.wait(20)
        return load(*arguments)

    monkeypatch.setattr(node_module.StreamingEngine, 'from_checkpoint', slow)
    host()
    client = connect(ready=False)
    assert loading.wait(20)
    began = time.monotonic()
    assert client.get_state() == 'configuring'
    assert client.call('get_parameters', GetParameters, names=['max_tokens']).values
    assert 'the node is configuring' in client.ask('Anybody?').message
    assert not client.change_state('activate'), 'one transition at a time'
    assert time.monotonic() - began < 10
    go_on.set()
    client.wait_ready()


def test_a_missing_model_fails_configure_and_can_be_mended(host, connect, tmp_path, checkpoint):
    host(autostart=False, model=str(tmp_path / 'model'))
    client = connect(ready=False)
    assert not client.change_state('configure')
    assert client.get_state() == 'unconfigured'
    client.wait_state('unconfigured')
    assert until(lambda: 'no such checkpoint folder' in client.engine_statuses[-1].message)
    assert client.engine_statuses[-1].level == b'\x02'
    assert 'no such checkpoint folder' in client.ask('Why?').message
    (tmp_path / 'model').symlink_to(checkpoint)
    assert client.change_state('configure')
    assert until(lambda: client.engine_statuses[-1].level == b'\x01')


def test_questions_under_way_end_with_the_activity(host, connect):
    host(caption_period=0.0, max_tokens=4096, max_questions=3, query_timeout=100.0)
    client = connect()
    client.stream(2)
    client.wait_value('frames_taken', lambda taken: taken == 2)
    questions = [client.ask_async(f'A long story {i}, please.') for i in range(3)]
    watch, _ = client.start_watch('Is there a long story?')
    client.wait_value('questions_waiting', lambda waiting: waiting == 3)
    assert client.change_state('deactivate')
    for question in questions:
        assert client.wait(question).message == 'the node was deactivated'
    assert client.wait(watch.get_result_async()).result.message == 'the node was deactivated'


@pytest.mark.parametrize('autostart', [True, False])
def test_a_failing_engine_goes_through_on_error(host, connect, autostart, capfd):
    node = host(autostart=autostart, caption_period=0.0, max_tokens=4)
    client = connect(ready=False)
    if not autostart:
        assert client.change_state('configure')
        assert client.change_state('activate')
    client.wait_ready()
    client.stream(2)
    client.wait_value('frames_taken', lambda taken: taken == 2)
    broken = node.engine

    def fail(*_):
        raise RuntimeError('the device is gone')

    broken._runner.ingest = fail
    client.stream(1)
    if autostart:
        assert until(lambda: node.state == 'active' and node.engine not in (broken, None))
        client.wait_ready()
        client.stream(2)
        client.wait_value('frames_in_memory', lambda frames: frames == 2)
        assert node.failure == ''
    else:
        client.wait_state('unconfigured')
        assert client.engine_statuses[-1].message == 'the engine failed: the device is gone'
        assert client.engine_statuses[-1].level == b'\x02'
        assert 'the device is gone' in client.ask('What happened?').message
        assert client.change_state('configure')
    log = capfd.readouterr().err
    assert 'the device is gone; the node was active and gives up its model and memories' in log


def test_an_engine_that_never_worked_is_not_started_again(host):
    node = host(autostart=True)
    assert until(lambda: node.state == 'active')
    node._on_failure(RuntimeError('the device is gone'))
    assert until(lambda: not node.context.ok())
    assert (node.exit_code, node.state) == (1, 'unconfigured')


def test_an_error_in_a_transition_is_logged(host, connect, monkeypatch, capfd):
    def fail(_):
        raise KeyError('a mistake')

    monkeypatch.setattr(node_module.Camera, 'activate', fail)
    host(autostart=False)
    client = connect(ready=False)
    assert client.change_state('configure')
    assert not client.change_state('activate')
    assert client.get_state() == 'unconfigured'
    assert "on_activate failed: KeyError('a mistake')" in capfd.readouterr().err


def test_autostart_off_says_what_it_waits_for(checkpoint):
    node = RunningNode(model=checkpoint, autostart='false')
    try:
        node.wait_for_log('waiting for ros2 lifecycle set /infinitevl_node configure')
    finally:
        assert node.stop() == 0


def test_two_nodes_in_one_process_do_not_hold_each_other_up(host, connect, monkeypatch):
    """One executor may run several nodes; a transition of one is on a thread of its own."""
    node = host(autostart=False)
    client = connect(ready=False)
    other = node_module.rclpy.create_node('other', context=node.context)
    node.executor.add_node(other)
    go_on = threading.Event()
    monkeypatch.setattr(node, '_load_engine', lambda: go_on.wait(20) and None)
    other.create_service(GetState, 'other/get', lambda _, response: response)
    service = client.node.create_client(GetState, 'other/get')
    assert service.wait_for_service(10)
    threading.Thread(target=node.transition, args=('configure',)).start()
    assert until(lambda: node.state == 'configuring')
    client.wait(service.call_async(GetState.Request()))
    assert node.state == 'configuring'
    go_on.set()
    assert until(lambda: node.state != 'configuring')
    other.destroy_node()


def test_a_callback_that_fails_ends_nothing(host, connect, capfd):
    node = host(caption_period=0.0)
    client = connect()
    failed = threading.Event()

    def fail():
        timer.cancel()
        failed.set()
        raise KeyError('a mistake')

    timer = node.create_timer(0.01, fail)
    assert failed.wait(10)
    assert client.get_state() == 'active'
    assert "KeyError: 'a mistake'" in capfd.readouterr().err
