"""`infinitevl live`: look at a stream and ask about it in a browser."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import sys
from pathlib import Path

EXAMPLES = """\
examples:
  infinitevl live                        the running node /infinitevl_node, over ROS
  infinitevl live --node /bot/infinitevl_node --camera front
  infinitevl live patrol.mp4 --loop      a video, a bag or a video device; needs no ROS
  infinitevl live /dev/video0

Then open http://127.0.0.1:8350. Ctrl-C ends it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        'stream',
        nargs='?',
        type=Path,
        metavar='VIDEO|BAG|/dev/videoN',
        help='play this through an engine of its own (default: attach to a running node)',
    )
    parser.add_argument('--node', help='attach to this node (default: /infinitevl_node)')
    parser.add_argument('--camera', metavar='NAME', help='which of its cameras, if it has several')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to serve on (default: this machine alone)'
    )
    parser.add_argument(
        '--port', type=int, default=8350, help='0: any free one (default: %(default)s)'
    )
    parser.add_argument(
        '--model', type=Path, metavar='DIR', help='checkpoint folder (default: models/tiny)'
    )
    parser.add_argument('--device', help='cpu, cuda, ... (default: auto)')
    parser.add_argument('--topic', help='of a bag that has several with images')
    parser.add_argument('--loop', action='store_true', help='begin again when it ends')


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C (130); ValueError or OSError for arguments at fault."""
    from ..live.server import LiveServer, listen

    _check(arguments)
    # Before anything is loaded: a port in use is said at once.
    with listen(arguments.host, arguments.port) as listener:
        feed = _feed(arguments)
        _announce(arguments.host, listener.getsockname()[1], feed.name)
        server = LiveServer(feed, arguments.host)
        try:
            code = 130 if asyncio.run(server.serve(listener)) == signal.SIGINT else 0
            # A second Ctrl-C must not break into the end.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except RuntimeError as error:
            print(f'infinitevl live: {error}', file=sys.stderr)
            code = 1
    if not server.closed:
        # An engine in the middle of a long step: Python cannot end beside it without a crash.
        sys.stdout.flush()
        os._exit(code)
    return code


def _check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that go with the other kind of stream."""
    of_a_file = {
        '--model': arguments.model,
        '--device': arguments.device,
        '--topic': arguments.topic,
        '--loop': arguments.loop,
    }
    of_a_node = {'--node': arguments.node, '--camera': arguments.camera}
    for name, value in (of_a_node if arguments.stream else of_a_file).items():
        if value:
            kind = 'a running node, without' if arguments.stream else 'a file or device, give'
            raise ValueError(f'{name} is for {kind} VIDEO|BAG|/dev/videoN')


def _feed(arguments: argparse.Namespace):
    # Each loads much that the other does not need.
    if arguments.stream is None:
        from ..live.ros_feed import RosFeed

        return RosFeed(arguments.node or '/infinitevl_node', arguments.camera or '')
    from ..live.file_feed import FileFeed
    from ..model.default import default_checkpoint

    return FileFeed(
        arguments.stream,
        arguments.model or default_checkpoint(),
        arguments.device or 'auto',
        arguments.topic or '',
        arguments.loop,
    )


def _announce(host: str, port: int, name: str) -> None:
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == 'localhost'
    if not local:
        print(
            f'Warning: anyone who reaches {host} can watch and ask: there is no password and no '
            'encryption.',
            file=sys.stderr,
        )
    shown = f'[{host}]' if ':' in host else host
    print(f'{name}: http://{shown}:{port} (Ctrl-C ends it)', flush=True)
