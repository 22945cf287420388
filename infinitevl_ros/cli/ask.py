"""`infinitevl ask`: questions about a video, a bag or images."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from ..engine import Sampling
from ..media.pictures import read_picture
from ..media.source import PICTURE_SUFFIXES, open_source
from ..replay.questions import MAX_TOKENS, Question, load_questions
from ..replay.record import Answered
from ..replay.run import Listener, asked
from ..replay.run import run as replay
from . import common

EPILOG = """
examples:
  infinitevl ask patrol.mp4 "Which room is this?" --at 12.5
  infinitevl ask patrol.mp4 "Which room is this?" "Is the door open?" --at 3 --at 12.5
  infinitevl ask patrol.mcap --topic /camera/image_raw "Have you seen a red ball?" --stream
  infinitevl ask before.png after.png "What has changed?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        'words',
        nargs='+',
        metavar='VIDEO|BAG|IMAGE... QUESTION...',
        help='one video, bag or folder, or images; then questions',
    )
    parser.add_argument(
        '--at',
        type=float,
        action='append',
        default=[],
        metavar='SECONDS',
        help='when in the stream to ask: the first is for the first question, and so on; those '
        'without are asked at the end',
    )
    parser.add_argument('--topic', default='', help='of a bag that has several with images')
    parser.add_argument('--questions', type=Path, help='more questions, from a YAML file')
    parser.add_argument('--stream', action='store_true', help='print answers as they come')
    parser.add_argument('--max-tokens', type=int, default=MAX_TOKENS, help='default: %(default)s')
    parser.add_argument('--temperature', type=float, default=0.0, help='0 says the likeliest')
    parser.add_argument('--seed', type=int, help='of the draw')
    parser.add_argument('--json-schema', type=Path, help='answer in JSON that fits this schema')
    common.add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    files, questions = _split(arguments)
    printer = Printer(arguments.stream)
    if _are_pictures(files):
        answers = _of_pictures(arguments, files, questions, printer)
        common.write_json(arguments.json, {'answers': [vars(answer) for answer in answers]})
        return 0
    if len(files) > 1:
        raise ValueError(f'{files[1]}: one video or bag at a time, or several images')
    source = open_source(files[0], arguments.topic)
    record = replay(
        common.load(arguments),
        source,
        questions,
        listener=Listener(piece=printer.piece, answer=printer.answer),
        progress=common.on_terminal() and not arguments.stream,
    )
    common.warn(record.warnings)
    common.write_json(arguments.json, record)
    return 0


def _of_pictures(
    arguments: argparse.Namespace, files: list[Path], questions: list[Question], printer: Printer
) -> list[Answered]:
    """Each picture is a frame; there is no time between them."""
    pictures = [read_picture(file) for file in files]
    engine = common.load(arguments)
    memory = engine.new_memory()
    for number, pixels in enumerate(pictures):
        engine.ingest(memory, pixels, number)
    answers = []
    for question in questions:
        answers.append(asked(engine, memory, question, on_piece=printer.piece))
        printer.answer(answers[-1])
    return answers


class Printer:
    """Answers on standard output, in one piece or as they come."""

    def __init__(self, stream: bool):
        self._stream, self._begun = stream, False

    def piece(self, question: Question, text: str) -> None:
        if self._stream:
            print(text if self._begun else f'? {question.text}\n= {text}', end='', flush=True)
            self._begun = True

    def answer(self, answer: Answered) -> None:
        if self._stream and self._begun:
            print(f'  [{_about(answer)}]', flush=True)
        else:
            print(f'? {answer.question}\n= {answer.text}  [{_about(answer)}]', flush=True)
        self._begun = False


def _about(answer: Answered) -> str:
    cut = ', cut short' if answer.finish == 'length' else ''
    return f'at {answer.at:.1f} s, {answer.frames} frames, {answer.seconds:.2f} s{cut}'


def _split(arguments: argparse.Namespace) -> tuple[list[Path], list[Question]]:
    """Files first, then questions; ValueError when there is nothing to ask, or of nothing."""
    schema = ''
    if arguments.json_schema:
        schema = arguments.json_schema.expanduser().read_text('utf-8')
    sampling = Sampling(
        arguments.max_tokens, arguments.temperature, seed=arguments.seed, json_schema=schema
    )
    words = list(arguments.words)
    files = [Path(words.pop(0)).expanduser()]
    while words and _looks_like_a_file(path := Path(words[0]).expanduser()):
        files.append(path)
        words.pop(0)
    for file in files:
        if not file.exists():
            raise ValueError(f'{file}: no such file')
    if len(arguments.at) > len(words):
        raise ValueError(f'--at is given {len(arguments.at)} times for {len(words)} questions')
    times = itertools.chain(arguments.at, itertools.repeat(None))
    questions = [Question(word, at, sampling=sampling) for word, at in zip(words, times)]  # noqa: B905
    if arguments.questions:
        questions += load_questions(arguments.questions).questions
    if not questions:
        raise ValueError('ask what? expected a question behind the file')
    if any(question.at is not None and not question.at >= 0 for question in questions):
        raise ValueError('--at takes seconds of stream time, 0 or more')
    return files, questions


def _looks_like_a_file(path: Path) -> bool:
    """It is one, or it is written like one: a typing error is no question."""
    has_suffix = len(path.suffix) in (4, 5) and path.suffix[1:].isalnum()
    try:
        return path.exists() or (has_suffix and ' ' not in str(path))
    except OSError:  # too long for a name
        return False


def _are_pictures(files: list[Path]) -> bool:
    return all(file.is_file() and file.suffix.lower() in PICTURE_SUFFIXES for file in files)
