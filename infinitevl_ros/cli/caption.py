"""`infinitevl caption`: what a video or a bag shows, in words, with times."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

from ..engine.engine import CAPTION_PROMPT
from ..replay.questions import MAX_TOKENS
from ..replay.record import Record, Said, one_line
from ..replay.run import Captioning, Interrupted, Listener
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
    common.check_folders(arguments.output, arguments.json)
    source = common.opened(arguments)
    engine = common.load(arguments)
    numbers = itertools.count(1)

    def write(said: Said) -> None:
        common.say(FORMATS[arguments.format](next(numbers), said), output)

    with contextlib.ExitStack() as stack:
        output = common.results(arguments)
        if arguments.output:
            output = stack.enter_context(open(arguments.output, 'w', encoding='utf-8'))
        try:
            record = replay(
                engine,
                source,
                captions=Captioning(arguments.every, arguments.prompt, arguments.max_tokens),
                listener=Listener(caption=write),
                progress=common.on_terminal(),
            )
        except Interrupted as stop:
            _finish(arguments, stop.record)
            raise
    if not record.captions:
        record.warnings.append(
            f'no caption: the stream is {len(record.frames)} frames long and shorter than '
            f'--every {arguments.every:g}'
        )
    _finish(arguments, record)
    return 0


def _finish(arguments: argparse.Namespace, record: Record) -> None:
    common.warn(record.warnings)
    common.write_json(arguments.json, record)


def _plain(_number: int, said: Said) -> str:
    return f'{said.at:8.1f}  {one_line(said.text)}'


def _jsonl(_number: int, said: Said) -> str:
    values = {'from': said.first_at, 'to': said.at, 'stamp': said.stamp, 'text': said.text}
    return json.dumps(values, ensure_ascii=False)


def _srt(number: int, said: Said) -> str:
    # An empty line would end the subtitle.
    text = one_line(said.text) or '-'
    return f'{number}\n{_code(said.first_at)} --> {_code(said.at)}\n{text}\n'


def _code(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    rest, milliseconds = divmod(milliseconds, 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    return f'{hour:02}:{minute:02}:{second:02},{milliseconds:03}'


FORMATS: dict[str, Callable[[int, Said], str]] = {
    'plain': _plain,
    'srt': _srt,
    'jsonl': _jsonl,
}
