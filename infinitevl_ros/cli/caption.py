"""`infinitevl caption`: what a video or a bag shows, in words, with times."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from ..engine.engine import CAPTION_PROMPT
from ..engine.schedule import NANOSECONDS
from ..replay.record import Said
from ..replay.run import MAX_TOKENS, Captioning, Listener
from ..replay.run import run as replay
from . import common

EPILOG = 'example: infinitevl caption patrol.mp4 --every 5 --format srt -o patrol.srt'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    common.add_source(parser)
    parser.add_argument('--every', type=float, default=5.0, help='seconds (default: %(default)s)')
    parser.add_argument('--format', choices=tuple(FORMATS), default='plain')
    parser.add_argument('-o', '--output', type=Path, help='file (default: standard output)')
    parser.add_argument('--prompt', default=CAPTION_PROMPT, help='what the model is asked')
    parser.add_argument('--max-tokens', type=int, default=MAX_TOKENS, help='default: %(default)s')
    common.add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.every < float('inf'):
        raise ValueError(f'--every is {arguments.every}, expected seconds, more than 0')
    source = common.opened(arguments)
    engine = common.load(arguments)
    first: list[int] = []
    numbered: list[Said] = []

    def write(said: Said) -> None:
        numbered.append(said)
        times = (
            (said.first_stamp - first[0]) / NANOSECONDS,
            (said.stamp - first[0]) / NANOSECONDS,
        )
        print(FORMATS[arguments.format](len(numbered), *times, said), file=output, flush=True)

    with contextlib.ExitStack() as stack:
        output = sys.stdout
        if arguments.output:
            output = stack.enter_context(open(arguments.output, 'w', encoding='utf-8'))
        record = replay(
            engine,
            source,
            captions=Captioning(arguments.every, arguments.prompt, arguments.max_tokens),
            listener=Listener(
                frame=lambda shot: first or first.append(shot.stamp),
                caption=write,
            ),
            progress=common.on_terminal(),
        )
    if not record.captions:
        record.warnings.append(
            f'no caption: the stream is {len(record.frames)} frames long and shorter than '
            f'--every {arguments.every:g}'
        )
    common.warn(record.warnings)
    common.write_json(arguments.json, record)
    return 0


def _plain(_number: int, _since: float, until: float, said: Said) -> str:
    return f'{until:8.1f}  {" ".join(said.text.split())}'


def _jsonl(_number: int, since: float, until: float, said: Said) -> str:
    values = {'from': since, 'to': until, 'stamp': said.stamp, 'text': said.text}
    return json.dumps(values, ensure_ascii=False)


def _srt(number: int, since: float, until: float, said: Said) -> str:
    # An empty line would end the subtitle.
    text = ' '.join(said.text.split()) or '-'
    return f'{number}\n{_code(since)} --> {_code(until)}\n{text}\n'


def _code(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    rest, milliseconds = divmod(milliseconds, 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    return f'{hour:02}:{minute:02}:{second:02},{milliseconds:03}'


FORMATS: dict[str, Callable[[int, float, float, Said], str]] = {
    'plain': _plain,
    'srt': _srt,
    'jsonl': _jsonl,
}
