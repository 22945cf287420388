"""A feed that does as a test says, a server for it, and a client of that."""

import asyncio
import json
import os
import signal
import time

import aiohttp
import numpy as np

from infinitevl_ros.live.feed import Feed, Reply, State
from infinitevl_ros.live.server import LiveServer, listen

PICTURE = np.full((60, 80, 3), 90, np.uint8)


class Scripted(Feed):
    """A feed whose questions go on until they are told to end."""

    name = 'scripted'

    def __init__(self):
        self.board, self.questions = None, []
        self.refusal = None

    def start(self, board):
        self.board = board

    def state(self):
        return State('streaming', 'ok', 'none', 15.0, 3)

    def ask(self, question, on_piece, on_done):
        if self.refusal:
            raise self.refusal
        self.questions.append(Asked(question, on_piece, on_done))
        return self.questions[-1].cancel

    def close(self):
        for asked in self.questions:
            asked.on_done(Reply(False, '', 'shutting down'))


class Asked:
    def __init__(self, text, on_piece, on_done):
        self.text, self.on_piece, self.on_done = text, on_piece, on_done
        self.ended = False

    def cancel(self):
        self.ended = True

    def answer(self, text):
        self.on_piece(text)
        self.on_done(Reply(True, text, '', 0.5, 7))


def served(check, host='127.0.0.1'):
    """Run `check(client, feed)` beside a server, then end that by Ctrl-C; returns in how long."""

    async def run():
        scripted = Scripted()
        with listen(host, 0) as listener:
            port = listener.getsockname()[1]
            serving = asyncio.create_task(LiveServer(scripted, host).serve(listener))
            url = f'http://127.0.0.1:{port}'
            async with aiohttp.ClientSession(url, read_bufsize=2**22) as client:
                await until(lambda: scripted.board is not None)
                try:
                    await check(client, scripted)
                finally:
                    began = time.monotonic()
                    os.kill(os.getpid(), signal.SIGINT)
                    assert await serving == signal.SIGINT
        return time.monotonic() - began

    return asyncio.run(run())


async def until(condition, timeout=5.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def own(client):
    return {'Origin': str(client._base_url).rstrip('/')}


def post(client, question='Where?', **options):
    options = {'json': {'question': question}, 'headers': own(client), **options}
    return client.post('/ask', **options)


async def lines(response):
    return [json.loads(line) async for line in response.content]


async def message(response):
    return (await response.json())['error']['message']


class Events:
    """The events of one page: `kinds` and `values`, pictures as their number of characters."""

    def __init__(self, client):
        self._client = client

    async def __aenter__(self):
        self.response = await self._client.get('/events')
        return self

    async def __aexit__(self, *_):
        self.response.close()

    async def next(self, kind):
        """The next event of a kind."""
        name = None
        async for line in self.response.content:
            word, _, value = line.decode().strip().partition(': ')
            if word == 'event':
                name = value
            if word == 'data' and name == kind:
                return value if kind == 'picture' else json.loads(value)
        raise EOFError
