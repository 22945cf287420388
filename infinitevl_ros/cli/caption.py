"""`infinitevl caption`: what a video or a bag shows, in words, with times."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ..engine.engine import CAPTION_PROMPT
from ..replay.questions import MAX_TOKENS
from ..replay.record import Record, Said, one_line
from ..replay.run import Captioning, Interrupted, Listener
from ..replay.run import run as replay
from . import common, output

LEAST = 0.001  # seconds between captions
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
    if not LEAST <= arguments.every < float('inf'):
        raise ValueError(f'--every is {arguments.every}, expected {LEAST} seconds or more')
    output.check_outputs(arguments.output, arguments.json, inputs=(arguments.source,))
    source = common.opened(arguments)
    engine = common.load(arguments)
    numbers = itertools.count(1)

    with _Lines(arguments.output, output.results(arguments)) as lines:
        try:
            record = replay(
                engine,
                source,
                captions=Captioning(arguments.every, arguments.prompt, arguments.max_tokens),
                listener=Listener(
                    caption=lambda said: lines.write(
                        FORMATS[arguments.format](next(numbers), said)
                    )
                ),
                progress=common.on_terminal(),
            )
        except Interrupted as stop:
            _finish(arguments, stop.record)
            raise
    if not record.captions:
        record.warnings.append(
            f'no caption: the stream of {len(record.frames)} frames is shorter than '
            f'--every {arguments.every:g} s'
        )
    _finish(arguments, record)
    return 0


class _Lines:
    """Lines of text to `stream`, or to a file, which is as it was until there is a first one."""

    def __init__(self, path: Path | None, stream: TextIO):
        self._path, self._stream = path, stream
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._path and not error:
            self._path.expanduser().write_text('')
        self._stack.close()

    def write(self, text: str) -> None:
        if self._path:
            file = open(self._path.expanduser(), 'w', encoding='utf-8')  # noqa: SIM115
            self._stream, self._path = self._stack.enter_context(file), None
        common.say(text, self._stream)


def _finish(arguments: argparse.Namespace, record: Record) -> None:
    output.warn(record.warnings)
    output.write_json(arguments.json, record)


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
