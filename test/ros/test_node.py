"""The node as a robot's other nodes see it: processes, real DDS, real images."""

import array
import json
import time

import cv2
import numpy as np
from action_msgs.msg import GoalStatus
from conftest import SECOND, counts, until
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import CompressedImage

from infinitevl_ros.media.images import ENCODINGS


def nanoseconds(stamp):
    return stamp.sec * SECOND + stamp.nanosec


def test_captions_and_answers_carry_the_stamps_of_what_was_seen(start, connect):
    node = start(caption_period=0.5, max_tokens=8)
    client = connect()
    last = client.stream(20)
    assert until(lambda: len(client.captions) >= 3), node.log
    first = client.captions[0]
    assert first.header.frame_id == 'head_camera'
    assert first.header.stamp == first.last_stamp
    # Stream time: the first frame has 100.1 s, one frame every 0.1 s.
    assert nanoseconds(first.first_stamp) == 100 * SECOND + SECOND // 10
    for before, caption in zip(client.captions, client.captions[1:], strict=False):
        assert caption.first_stamp == before.last_stamp
        assert nanoseconds(caption.last_stamp) - nanoseconds(caption.first_stamp) >= SECOND // 2
        assert caption.frames_seen > before.frames_seen
    assert first.text
    assert first.seconds > 0

    client.wait_value('frames_taken', lambda taken: taken == 20)
    reply = client.ask('What did you see?')
    assert reply.success, reply.message
    assert reply.answer
    assert reply.message == ''
    assert reply.last_stamp == last
    assert reply.frames_seen == 20
    assert 0 < reply.tokens <= 8
    assert 0 < reply.seconds < 10


def test_decoding_an_answer_stops_nothing(host, connect):
    host(caption_period=0.5, max_tokens=8, query_timeout=100.0)
    client = connect()
    client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 3)
    handle, _ = client.start_goal('Tell a very long story.', max_tokens=4000)
    answer = handle.get_result_async()
    client.stream(20)
    client.wait_value('frames_taken', lambda taken: taken >= 22)
    assert until(lambda: len(client.captions) >= 2)
    assert client.reset().message.startswith('forgot')
    assert not answer.done(), 'the answer must outlast all this for it to mean anything'
    client.wait(handle.cancel_goal_async())
    result = client.wait(answer).result
    assert result.tokens > 10
    assert result.frames_seen == 3


def test_two_clients_at_once(host, connect):
    host(max_tokens=6, caption_period=0.0)
    clients = [connect(), connect()]
    clients[0].stream(3)
    clients[0].wait_value('frames_taken', lambda taken: taken == 3)
    futures = [client.ask_async(f'question {i}') for i in range(2) for client in clients]
    assert all(clients[0].wait(future).success for future in futures)


def test_an_answer_streams_and_agrees_with_the_service(host, connect):
    host(caption_period=0.0, max_tokens=12)
    client = connect()
    last = client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 3)
    client.wait_feedback()
    handle, feedback = client.start_goal('What is there?')
    reply = client.wait(handle.get_result_async())
    assert reply.status == GoalStatus.STATUS_SUCCEEDED
    assert until(lambda: ''.join(feedback) == reply.result.answer)
    assert len(feedback) > 1
    assert (reply.result.tokens, reply.result.frames_seen) == (12, 3)
    assert reply.result.last_stamp == last
    assert client.ask('What is there?').answer == reply.result.answer

    def draw(seed):
        fields = {'temperature': 1.5, 'max_tokens': 20, 'seed': seed}
        handle, _ = client.start_goal('What is there?', **fields)
        return client.wait(handle.get_result_async()).result.answer

    assert draw(1) == draw(1) != draw(2)


def test_a_cancelled_answer_ends_between_tokens(host, connect):
    host(caption_period=0.0, max_tokens=4096, max_questions=2)
    client = connect()
    client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 3)
    handles = [client.start_goal(f'A long story {i}, please.') for i in range(2)]
    assert until(lambda: handles[0][1])
    for handle, _ in reversed(handles):
        began = time.monotonic()
        client.wait(handle.cancel_goal_async())
        reply = client.wait(handle.get_result_async())
        assert reply.status == GoalStatus.STATUS_CANCELED
        assert reply.result.message == 'cancelled'
        assert time.monotonic() - began < 1
    assert client.reset().success


def test_goals_that_cannot_be_answered_are_aborted_with_a_reason(host, connect):
    host(caption_period=0.0)
    client = connect()

    def refused(question, **fields):
        reply = client.wait(client.start_goal(question, **fields)[0].get_result_async())
        assert reply.status == GoalStatus.STATUS_ABORTED
        return reply.result.message

    assert 'no frame seen yet' in refused('What?')
    client.stream(1)
    client.wait_value('frames_taken', lambda taken: taken == 1)
    assert refused('') == 'the question is empty'
    assert 'temperature is -1.0' in refused('What?', temperature=-1.0)
    assert 'at most 2048' in refused('why ' * 3000)


def test_answers_in_json(host, connect):
    """The random network would say anything: only the schema makes it JSON."""
    node = host(caption_period=0.0)
    client = connect()
    client.publish()
    assert until(lambda: counts(node).taken == 1)
    schema = {
        'type': 'object',
        'properties': {'people': {'type': 'integer', 'minimum': 0, 'maximum': 9}},
        'required': ['people'],
        'additionalProperties': False,
    }

    def asked(schema, **fields):
        handle, _ = client.start_goal('How many people?', json_schema=schema, **fields)
        return client.wait(handle.get_result_async())

    reply = asked(json.dumps(schema), temperature=1.0, seed=3)
    assert reply.status == GoalStatus.STATUS_SUCCEEDED
    assert json.loads(reply.result.answer)['people'] in range(10)
    assert 'json_schema' in asked('{"type": ').result.message
    cut = asked(json.dumps(schema), max_tokens=2)
    assert cut.status == GoalStatus.STATUS_ABORTED
    assert cut.result.message == 'the JSON is longer than max_tokens'


def test_a_question_may_bring_its_own_deadline(host, connect):
    node = host(caption_period=0.0, query_timeout=1000.0, max_tokens=4096)
    client = connect()
    client.publish()
    assert until(lambda: counts(node).taken == 1)
    handle, _ = client.start_goal('A long story, please.', timeout=0.5)
    result = client.wait(handle.get_result_async()).result
    assert result.message == 'no answer within 0.5 s'
    assert result.answer
    handle, _ = client.start_goal('A long story, please.', timeout=-1.0)
    assert 'timeout is -1.0' in client.wait(handle.get_result_async()).result.message
    handle, _ = client.start_goal('Where?', camera='top')
    assert 'camera is "top"' in client.wait(handle.get_result_async()).result.message


def test_a_full_queue_and_a_timeout_are_answered(host, connect):
    host(max_tokens=4096, max_questions=1, query_timeout=4.0, caption_period=0.0)
    client = connect()
    client.stream(2)
    client.wait_value('frames_taken', lambda taken: taken == 2)
    first = client.ask_async('long')
    client.wait_value('questions_waiting', lambda waiting: waiting == 1)
    second = client.ask('too much')
    assert not second.success
    assert second.message == 'busy: 1 questions are waiting already'
    reply = client.wait(first)
    assert not reply.success
    assert reply.message == 'no answer within 4.0 s'
    assert reply.answer
    assert reply.tokens > 0


def test_who_keeps_the_queue_full_leaves_room_for_others(host, connect):
    host(caption_period=0.0, max_tokens=16, max_questions=4)
    client = connect()
    client.stream(1)
    client.wait_value('frames_taken', lambda taken: taken == 1)
    flood, told = [client.ask_async('more?') for _ in range(4)], []
    for name in ('operator', 'planner'):
        handle, _ = client.start_goal('Where?', client=name)
        result = handle.get_result_async()
        while not result.done():  # never fewer than four of the flood are open
            flood = [f for f in flood if not f.done() or told.append(f.result().message)]
            flood += [client.ask_async('more?') for _ in range(4 - len(flood))]
            client.wait(flood[0])
        told.append(result.result().result.message)
        assert told[-1] == ''
    assert set(told) <= {
        '',
        'busy: 4 questions are waiting already',
        'busy: its place went to a client that has fewer',
    }


def test_questions_that_cannot_be_answered_yet_or_ever(host, connect):
    host()
    client = connect()
    early = client.ask('Anybody there?')
    assert not early.success
    assert early.message == 'no frame seen yet on /image (1 publishers)'
    client.stream(1)
    client.wait_value('frames_taken', lambda taken: taken == 1)
    for question, said in (('', 'empty'), (' \t', 'empty'), ('why ' * 3000, 'at most 2048')):
        reply = client.ask(question)
        assert not reply.success
        assert said in reply.message
    assert client.ask('And now?').success


def test_bad_frames_are_warned_of_once_and_survived(start, connect):
    node = start(caption_period=0.0)
    client = connect()
    bad = [
        {'encoding': 'yuv9'},
        {'data': array.array('B', bytes(100))},
        {'step': 3},
        {'height': 0},
        {'data': array.array('B')},
    ]
    for changes in bad:
        client.publish(client.image(**changes))
        time.sleep(0.1)
    client.wait_value('frames_failed', lambda failed: failed == len(bad))
    assert client.statuses[-1].level == b'\x01'
    assert node.log.count('frame refused') == 1
    assert 'encoding "yuv9" is not supported' in node.log
    client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 3)
    assert client.ask('Still there?').success


def test_encodings_over_dds(host, connect):
    hosted = host(caption_period=0.0)
    client = connect()
    memory = hosted.cameras[0].memory
    for number, (encoding, layout) in enumerate(ENCODINGS.items(), start=1):
        shape = layout.rows(48), layout.row_bytes(64)
        data = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        client.publish(client.image(data, encoding=encoding, height=48, width=64))
        assert until(lambda n=number: hosted.scheduler.counts(memory).taken == n), encoding
    client.wait_value('frames_taken', lambda taken: taken == len(ENCODINGS))


def test_compressed_images(start, connect):
    node = start(transport='compressed', caption_period=0.0)
    client = connect(image_topic='image/compressed', image_type=CompressedImage)
    for i, extension in enumerate(('.jpg', '.png'), start=1):
        data = cv2.imencode(extension, np.zeros((48, 64, 3), np.uint8))[1].tobytes()
        client.publish(client.stamped(CompressedImage(format=extension[1:], data=data)))
        client.wait_value('frames_taken', lambda taken, i=i: taken == i)
    client.publish(client.stamped(CompressedImage(format='jpeg', data=data[:30])))
    client.wait_value('frames_failed', lambda failed: failed == 1)
    assert 'not a readable JPEG or PNG' in node.log


def test_a_remapped_camera_takes_its_compressed_topic_along(start, connect):
    start('-r', 'image:=/head/rgb', transport='compressed')
    connect(image_topic='/head/rgb/compressed', image_type=CompressedImage)


def test_a_best_effort_camera_that_comes_later(start, connect):
    """BEST_AVAILABLE was decided without it, as reliable: the subscription must be made again."""
    node = start(caption_period=0.0)
    node.wait_for_log('ready')
    client = connect(reliability='best_effort')
    node.wait_for_log('subscribing as best effort')
    assert until(lambda: client.values['image_reliability'] == 'best_effort')
    until(lambda: client.publish() or int(client.values['frames_taken']) > 0, timeout=10)
    client.wait_value('frames_taken', lambda taken: taken > 0)


def test_a_mismatch_that_was_asked_for_is_explained(start):
    from conftest import Client

    node = start(image_reliability='reliable')
    node.wait_for_log('ready')
    client = Client(reliability='best_effort')
    try:
        said = (
            'offers reliability best_effort, asked for is reliable (image_reliability: reliable)'
        )
        node.wait_for_log(said)
        assert until(lambda: client.statuses and said in client.statuses[-1].message)
        assert '/client offers' in client.statuses[-1].message
        assert client.statuses[-1].level == b'\x01'
    finally:
        client.close()


def test_unstamped_images_get_the_time_of_arrival(host, connect):
    host(caption_period=0.0, max_tokens=4)
    client = connect()
    client.publish(client.image(stamp=0))
    client.wait_value('frames_taken', lambda taken: taken == 1)
    assert abs(client.ask('When?').last_stamp.sec - time.time()) < 60


def test_stamps_that_jump_back_do_not_stop_captions(host, connect):
    host(caption_period=1.0, max_tokens=4)
    client = connect()
    for stamp in (500, 502):
        client.publish(client.image(stamp=stamp * SECOND))
        assert until(lambda: client.values['frames_taken'] != '0')
    assert until(lambda: len(client.captions) == 1)
    for stamp in (10, 12):
        client.publish(client.image(stamp=stamp * SECOND))
        time.sleep(0.5)
    assert until(lambda: len(client.captions) == 2)
    assert [c.last_stamp.sec for c in client.captions] == [502, 12]
    assert client.captions[1].first_stamp.sec == 10


def test_a_burst_of_questions_is_answered_to_the_last(host, connect):
    host(caption_period=0.0, max_tokens=4)
    client = connect()
    client.stream(1)
    client.wait_value('frames_taken', lambda taken: taken == 1)
    replies = [client.wait(f) for f in [client.ask_async(f'question {i}') for i in range(10)]]
    assert {reply.message for reply in replies} <= {'', 'busy: 8 questions are waiting already'}
    assert sum(reply.success for reply in replies) >= 8


def test_reset_forgets(host, connect):
    host(caption_period=0.0)
    client = connect()
    client.stream(4)
    client.wait_value('frames_in_memory', lambda frames: frames == 4)
    size = client.values['memory_bytes']
    reply = client.reset()
    assert (reply.success, reply.message) == (True, 'forgot 4 frames')
    assert not client.ask('What?').success
    client.stream(1)
    client.wait_value('frames_in_memory', lambda frames: frames == 1)
    assert client.values['memory_bytes'] == size


def test_parameters_change_at_run_time(host, connect):
    host(caption_period=0.0, max_tokens=3)
    client = connect()
    client.stream(3)
    client.wait_value('frames_taken', lambda taken: taken == 3)
    assert client.ask('Say much.').tokens <= 3
    remote = AsyncParameterClient(client.node, 'infinitevl_node')
    assert remote.wait_for_services(10)
    changes = [Parameter('max_tokens', value=9), Parameter('caption_period', value=0.1)]
    results = client.wait(remote.set_parameters(changes)).results
    assert all(result.successful for result in results)
    assert 3 < client.ask('Say much.').tokens <= 9
    client.stream(3)
    assert until(lambda: client.captions)
    refused = client.wait(remote.set_parameters([Parameter('device', value='cpu')])).results[0]
    assert not refused.successful
