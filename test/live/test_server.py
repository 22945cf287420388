"""What the server lets in and what it refuses; clients that are slow, too many or gone."""

import asyncio
import json
import time

import numpy as np
import pytest
from scripted import PICTURE, Events, Scripted, lines, message, own, post, served, until

from infinitevl_ros.live import feed, server
from infinitevl_ros.live.feed import BusyError, Caption, Reply
from infinitevl_ros.live.server import LiveServer, listen


@pytest.mark.parametrize('path', ['/', '/page.css', '/page.js', '/nothing'])
def test_every_page_forbids_what_is_not_its_own(path):
    async def check(client, _):
        async with client.get(path) as response:
            assert response.status == (404 if path == '/nothing' else 200)
            policy = response.headers['Content-Security-Policy']
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert 'unsafe' not in policy
            assert response.headers['X-Content-Type-Options'] == 'nosniff'
            assert 'Access-Control-Allow-Origin' not in response.headers

    served(check)


def test_other_names_are_refused():
    async def check(client, feed):
        port = client._base_url.port
        for host in (f'127.0.0.1:{port}', f'localhost:{port}', 'LOCALHOST', 'localhost:9'):
            async with client.get('/', headers={'Host': host}) as response:
                assert response.status == 200, host
        # What a name that was bound anew to 127.0.0.1 would send.
        for host in ('evil.example', f'evil.example:{port}', '127.0.0.1.evil.example', '8.8.8.8'):
            for path in ('/', '/events'):
                async with client.get(path, headers={'Host': host}) as response:
                    assert response.status == 403
                    assert host in await message(response)
            headers = {'Host': host, 'Origin': f'http://{host}'}
            async with post(client, headers=headers) as response:
                assert response.status == 403
        assert not feed.questions

    served(check)


def test_the_address_that_was_reached_is_a_name_everywhere():
    async def check(client, _):
        async with client.get('/') as response:
            assert response.status == 200
        async with client.get('/', headers={'Host': '192.0.2.7'}) as response:
            assert response.status == 403

    served(check, '0.0.0.0')


def test_other_sites_cannot_ask_or_read():
    async def check(client, feed):
        port = client._base_url.port
        origins = (
            'http://evil.example',
            'null',
            f'https://127.0.0.1:{port}',
            f'http://localhost:{port}',
            'http://127.0.0.1:1',
            'http://127.0.0.1',
        )
        for origin in origins:
            async with post(client, headers={'Origin': origin}) as response:
                assert response.status == 403
                assert origin in await message(response)
            async with client.get('/events', headers={'Origin': origin}) as response:
                assert response.status == 403
        async with post(client, headers={}) as response:
            assert response.status == 403
            assert 'Origin' in await message(response)
        # A form of another site can send no JSON, and its browser would tell its Origin.
        async with post(client, json=None, data={'question': 'Where?'}) as response:
            assert response.status == 415
        assert not feed.questions

    served(check)


def test_an_answer_comes_in_pieces():
    async def check(client, feed):
        async with post(client, ' Where? ') as response:
            assert response.status == 200
            asked = feed.questions[0]
            assert asked.text == 'Where?'
            asked.on_piece('in the ')
            assert json.loads(await response.content.readline()) == {'text': 'in the '}
            asked.on_piece('hall')
            asked.on_done(Reply(True, 'in the hall', '', 0.5, 7))
            text, last = await lines(response)
            assert text == {'text': 'hall'}
            assert last['done']['text'] == 'in the hall'
            assert last['done']['frames'] == 7
        async with post(client) as response:
            feed.questions[1].on_done(Reply(False, 'in', 'no answer within 60.0 s'))
            assert (await lines(response))[-1]['error']['message'] == 'no answer within 60.0 s'

    served(check)


@pytest.mark.parametrize(
    ('body', 'status', 'words'),
    [
        ('{"question": "  "}', 400, 'empty'),
        ('{"question": 7}', 400, 'expected {"question"'),
        ('["question"]', 400, 'expected {"question"'),
        ('null', 400, 'expected {"question"'),
        ('{"question"', 400, 'expected {"question"'),
        ('\xff', 400, 'expected {"question"'),
        (json.dumps({'question': 'a' * 2001}), 413, '2001 characters long, at most 2000'),
        (json.dumps({'question': 'a' * 20000}), 413, 'more than 16384 bytes'),
    ],
)
def test_what_is_no_question_is_refused(body, status, words):
    async def check(client, feed):
        headers = {**own(client), 'Content-Type': 'application/json'}
        data = body.encode('latin-1')
        async with post(client, json=None, data=data, headers=headers) as response:
            assert response.status == status
            assert words in await message(response)
        assert not feed.questions

    served(check)


def test_a_question_of_the_longest_length_fits():
    async def check(client, feed):
        longest = '字' * 2000
        async with post(client, longest) as response:
            assert feed.questions[0].text == longest
            feed.questions[0].answer('yes')
            assert (await lines(response))[-1]['done']

    served(check)


def test_too_many_questions_are_told_so_until_one_ends():
    async def check(client, feed):
        open_ones = [await post(client) for _ in range(server.MOST_ASKING)]
        async with post(client) as response:
            assert response.status == 429
            assert await message(response) == 'busy: 4 questions are being answered'
        feed.questions[2].answer('yes')
        await lines(open_ones[2])
        async with post(client) as response:
            assert response.status == 200
        for response in open_ones:
            response.close()

    served(check)


def test_what_the_feed_refuses_is_told():
    async def check(client, feed):
        for refusal, status in ((BusyError('8 wait'), 429), (ValueError('no frame seen'), 409)):
            feed.refusal = refusal
            async with post(client) as response:
                assert response.status == status
                assert str(refusal) in await message(response)

    served(check)


def test_a_client_that_goes_away_ends_its_question():
    async def check(client, feed):
        kept = await post(client, 'kept')
        gone = await post(client, 'gone')
        gone.close()
        await until(lambda: feed.questions[1].ended)
        assert not feed.questions[0].ended
        feed.questions[0].answer('still here')
        assert (await lines(kept))[-1]['done']['text'] == 'still here'

    served(check)


def test_a_page_gets_what_there_is_and_then_what_is_new():
    async def check(client, scripted):
        board = scripted.board
        for number in range(60):
            board.say(Caption(float(number), f'caption {number}'))
        board.show(PICTURE)
        async with Events(client) as events:
            assert await events.next('hello') == {'name': 'scripted', 'longest': 2000}
            for number in range(10, 60):  # the newest fifty are kept
                assert (await events.next('caption'))['text'] == f'caption {number}'
            assert len(await events.next('picture')) > 100
            assert (await events.next('state'))['frames_per_second'] == 15.0
            board.say(Caption(60.0, '</p>\n\ndata: not an event'))
            assert (await events.next('caption'))['text'] == '</p>\n\ndata: not an event'
        await until(lambda: board.watchers == 0)

    served(check)


def test_pictures_are_at_most_ten_a_second_and_never_large():
    async def check(client, scripted):
        board = scripted.board
        assert len(feed.encode(np.zeros((3000, 4000, 3), np.uint8))) < 20_000
        async with Events(client) as events:
            await events.next('hello')
            before, began = board.pictures, time.monotonic()
            while time.monotonic() < began + 1:
                board.show(PICTURE)
                await asyncio.sleep(0.005)
            assert 7 <= board.pictures - before <= 11

    served(check)


def test_a_client_that_takes_nothing_holds_nobody_up_and_is_sent_away(monkeypatch):
    monkeypatch.setattr(server, 'WRITE_TIMEOUT', 0.5)
    noise = np.random.default_rng(0).integers(0, 256, (720, 960, 3), np.uint8)

    async def check(client, scripted):
        board = scripted.board
        port = client._base_url.port
        _, writer = await asyncio.open_connection('127.0.0.1', port, limit=1024)
        writer.write(b'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n')
        await until(lambda: board.watchers == 1)
        async with Events(client) as events:
            deadline = time.monotonic() + 8
            number = 0
            while board.watchers > 1 or number < 10:
                assert time.monotonic() < deadline
                await asyncio.to_thread(board.show, noise)
                board.say(Caption(float(number), str(number)))
                assert (await events.next('caption'))['text'] == str(number)
                number += 1
                await asyncio.sleep(0.05)
        writer.close()

    served(check)


def test_more_pages_than_fit_are_refused(monkeypatch):
    monkeypatch.setattr(server, 'MOST_WATCHERS', 3)

    async def check(client, scripted):
        pages = [await client.get('/events') for _ in range(3)]
        async with client.get('/events') as response:
            assert response.status == 503
        pages[0].close()
        await until(lambda: scripted.board.watchers == 2)
        async with client.get('/events') as response:
            assert response.status == 200
        for page in pages:
            page.close()

    served(check)


def test_ctrl_c_ends_open_pages_and_questions_at_once():
    async def check(client, _):
        async with Events(client) as events:
            await events.next('state')
        check.page = await client.get('/events')
        check.question = await post(client)

    assert served(check) < 2


def test_a_feed_that_fails_ends_the_server_with_its_error():
    async def run():
        scripted = Scripted()
        with listen('127.0.0.1', 0) as listener:
            serving = asyncio.create_task(LiveServer(scripted, '127.0.0.1').serve(listener))
            await until(lambda: scripted.board is not None)
            await asyncio.to_thread(scripted.board.fail, ValueError('no such model'))
            await serving

    with pytest.raises(ValueError, match='no such model'):
        asyncio.run(run())


def test_questions_that_nothing_could_send_on():
    async def check(client, feed):
        for body, said in (
            (r'{"question": "a\u0000b"}', 'NUL'),
            ('[' * 16000, 'expected {"question"'),
        ):
            options = {'json': None, 'data': body}
            headers = {**own(client), 'Content-Type': 'application/json'}
            async with post(client, headers=headers, **options) as response:
                assert response.status == 400
                assert said in await message(response)
        headers = {**own(client), 'Content-Type': 'application/json; charset=nope'}
        async with post(client, headers=headers, json=None, data='{}') as response:
            assert response.status == 400
        headers = {**own(client), 'Content-Type': 'application/json'}
        data = r'{"question": "what \ud800?"}'
        asking = asyncio.ensure_future(client.post('/ask', headers=headers, data=data))
        await until(lambda: feed.questions)
        assert feed.questions[0].text == 'what ??'
        feed.questions[0].answer('this')
        assert (await lines(await asking))[-1]['done']['text'] == 'this'

    served(check)
