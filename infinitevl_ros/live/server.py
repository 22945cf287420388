"""The page's server: pictures, captions and state as server-sent events, questions by POST."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import ipaddress
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from .feed import Board, BusyError, Feed, Reply, call_on

PAGES = {'/': 'page.html', '/page.css': 'page.css', '/page.js': 'page.js'}
MOST_WATCHERS = 32  # tabs that look on
MOST_ASKING = 4  # questions under way
MOST_CHARACTERS = 2000  # of a question
MOST_BYTES = 16 * 1024  # of a request
WRITE_TIMEOUT = 10.0  # seconds for a client to take what it is sent
STATE_PERIOD = 1.0  # seconds
CLOSE_TIMEOUT = 0.7  # seconds, for the clients and again for the feed
HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
}


class RefusedError(Exception):
    """A request that is answered with an HTTP status and {"error": {"message": ...}}."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class LiveServer:
    """Serves a feed on `host`, which is one of the names it may be called by.

    `closed` tells, after `serve`, whether the feed has ended all of its threads.
    """

    def __init__(self, feed: Feed, host: str):
        self._feed = feed
        self._names = {'localhost', host.lower(), socket.gethostname().lower()}
        self._names.add(f'{socket.gethostname()}.local'.lower())
        self._asking = 0
        self.closed = False
        self._board: Board | None = None

    async def serve(self, listener: socket.socket) -> int | None:
        """Serve until SIGINT or SIGTERM comes, whose number is returned, or the feed fails.

        Raises what the feed failed with.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _set, ended, number)
        self._board = board = Board(loop)
        app = web.Application(client_max_size=MOST_BYTES, middlewares=[self._guard])
        app.add_routes([web.get(path, self._page) for path in PAGES])
        app.add_routes([web.get('/events', self._events), web.post('/ask', self._ask)])
        app.on_response_prepare.append(_add_headers)
        # A client that goes away ends its handler, and with it its question.
        runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=CLOSE_TIMEOUT, access_log=None
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
        self._feed.start(board)
        poll = asyncio.create_task(self._poll())
        try:
            await asyncio.wait([ended, board.failure], return_when=asyncio.FIRST_COMPLETED)
            if board.failure.done():
                board.failure.result()
            return ended.result()
        finally:
            poll.cancel()
            board.close()
            # An engine finishes its step first, however long that takes: nobody waits for it.
            closing = threading.Thread(target=self._feed.close, daemon=True)
            closing.start()
            await runner.cleanup()
            await asyncio.to_thread(closing.join, CLOSE_TIMEOUT)
            self.closed = not closing.is_alive()

    async def _poll(self) -> None:
        while True:
            self._board.set_state(self._feed.state())
            await asyncio.sleep(STATE_PERIOD)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        try:
            self._check_origin(request)
            return await handler(request)
        except RefusedError as refused:
            error = {'message': str(refused)}
            return web.json_response({'error': error}, status=refused.status)

    def _check_origin(self, request: web.Request) -> None:
        """Raise unless the request is of our own page: by whatever name another site calls us."""
        host, origin = request.headers.get('Host', ''), request.headers.get('Origin')
        if not self._is_own_name(host, request):
            raise RefusedError(403, f'"{host}" is not a name of this server')
        if origin is None and request.method not in ('GET', 'HEAD'):
            raise RefusedError(403, "a request without an Origin, expected this server's")
        if origin is not None and origin.lower() != f'http://{host.lower()}':
            raise RefusedError(403, f'a request of another site, "{origin}"')

    def _is_own_name(self, host: str, request: web.Request) -> bool:
        """A name we are known by, or the address the client has reached."""
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:
            return False
        if name in self._names:
            return True
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(name)
            reached = ipaddress.ip_address(request.get_extra_info('sockname')[0].split('%')[0])
            return address in (reached, getattr(reached, 'ipv4_mapped', None))
        return False

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(Path(__file__).with_name(PAGES[request.path]))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Everything that changes, to one who looks on; what it is too slow for it never gets."""
        board = self._board
        if board.watchers >= MOST_WATCHERS:
            raise RefusedError(503, f'busy: {MOST_WATCHERS} pages are open already')
        changed = board.watch()
        try:
            response = web.StreamResponse(headers={'Content-Type': 'text/event-stream'})
            await response.prepare(request)
            pictures = states = said = 0
            hello = {'name': self._feed.name, 'longest': MOST_CHARACTERS}
            text = f'retry: 1000\n{_event("hello", hello)}'
            while not board.closing:
                changed.clear()
                captions, said = board.newer_captions(said)
                text += ''.join(_event('caption', asdict(caption)) for caption in captions)
                if board.states != states:
                    states = board.states
                    text += _event('state', asdict(board.state))
                if board.pictures != pictures:
                    pictures = board.pictures
                    text += f'event: picture\ndata: {base64.b64encode(board.jpeg).decode()}\n\n'
                await _write(request, response, text)
                text = ''
                await changed.wait()
        finally:
            board.unwatch(changed)
        return response

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        """The answer as it is made, a JSON object a line: {text} each, {done} or {error} last."""
        question = await _question(request)
        if self._asking >= MOST_ASKING:
            raise RefusedError(429, f'busy: {self._asking} questions are being answered')
        answer = _Answer(asyncio.get_running_loop())
        self._asking += 1
        end = None
        try:
            try:
                end = self._feed.ask(question, answer.on_piece, answer.on_done)
            except BusyError as error:
                raise RefusedError(429, f'busy: {error}') from None
            except ValueError as error:
                raise RefusedError(409, str(error)) from None
            response = web.StreamResponse(headers={'Content-Type': 'application/x-ndjson'})
            await response.prepare(request)
            async for line in answer.lines():
                await _write(request, response, f'{json.dumps(line)}\n')
            return response
        finally:
            self._asking -= 1
            if end is not None:
                end()


class _Answer:
    """An answer on its way from the feed's thread to the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop, self._changed = loop, asyncio.Event()
        self._text, self._reply = '', None

    def on_piece(self, text: str) -> None:
        call_on(self._loop, self._add, text, None)

    def on_done(self, reply: Reply) -> None:
        call_on(self._loop, self._add, '', reply)

    def _add(self, text: str, reply: Reply | None) -> None:
        self._text += text
        self._reply = reply
        self._changed.set()

    async def lines(self):
        """What to send: the pieces that came while the one before was sent as one."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            text, self._text = self._text, ''
            if text:
                yield {'text': text}
            if reply := self._reply:
                key = 'done' if reply.success else 'error'
                yield {key: asdict(reply)}
                return


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError or ValueError say in a line what is wrong."""
    if not 0 <= port < 65536:
        raise ValueError(f'--port is {port}, expected 0 (any that is free) to 65535')
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise OSError(f'--host {host}: {error.strerror}') from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f'port {port} of {host} is in use already; choose another with --port'
            ) from None
        raise OSError(f'cannot serve on {host}, port {port}: {os.strerror(error.errno)}') from None


async def _question(request: web.Request) -> str:
    """The question in a request's body; an HTTP error when there is none that can be asked."""
    if request.content_type != 'application/json':
        raise RefusedError(415, f'a body of {request.content_type}, expected application/json')
    try:
        body = await request.json()
        # Text from JSON may hold halves of characters, which nothing can send on.
        question = body['question'].strip().encode('utf-8', 'replace').decode()
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError(413, f'more than {MOST_BYTES} bytes') from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise RefusedError(400, 'expected {"question": "text"}') from None
    if '\0' in question:
        raise RefusedError(400, 'the question has a NUL in it')
    if not question:
        raise RefusedError(400, 'the question is empty')
    if len(question) > MOST_CHARACTERS:
        text = f'the question is {len(question)} characters long, at most {MOST_CHARACTERS} fit'
        raise RefusedError(413, text)
    return question


def _event(name: str, value: object) -> str:
    return f'event: {name}\ndata: {json.dumps(value)}\n\n'


async def _write(request: web.Request, response: web.StreamResponse, text: str) -> None:
    """Send text; ConnectionError for a client that has gone or takes too long."""
    try:
        await asyncio.wait_for(response.write(text.encode()), WRITE_TIMEOUT)
    except asyncio.TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError('the client takes nothing') from None


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _set(future: asyncio.Future, value: object) -> None:
    if not future.done():
        future.set_result(value)
