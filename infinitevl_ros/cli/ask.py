"""`infinitevl ask`: questions about a video, a bag or images."""

from __future__ import annotations

import argparse
import itertools
import re
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TextIO

from ..engine import Sampling
from ..media.pictures import read_picture
from ..media.source import BAG_SUFFIXES, PICTURE_SUFFIXES, open_source
from ..replay.questions import MAX_TOKENS, Question, load_questions
from ..replay.record import Answered, Record, one_line, printable
from ..replay.run import Interrupted, Listener, asked
from ..replay.run import run as replay
from . import common, output

EPILOG = """
examples:
  infinitevl ask patrol.mp4 "Which room is this?" --at 3 --at 12.5
  infinitevl ask patrol.mp4 "Which room is this?" "Is the door open?" --at 3 --at 12.5
  infinitevl ask patrol.mcap --topic /camera/image_raw "Have you seen a red ball?" --stream
  infinitevl ask before.png after.png "What has changed?"
"""
# Of files that may have spaces in their names; a question does not end like this.
SUFFIXES = (*PICTURE_SUFFIXES, *BAG_SUFFIXES, '.mp4', '.avi', '.mkv', '.mov', '.webm')


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
        help='when in the stream to ask, instead of at its end; one question is asked at every '
        'such time, of several questions each at its own, in their order',
    )
    parser.add_argument('--topic', default='', help='of a bag that has several with images')
    parser.add_argument('--questions', type=Path, help='more questions, from a YAML file')
    parser.add_argument('--stream', action='store_true', help='print answers as they come')
    parser.add_argument('--max-tokens', type=int, default=MAX_TOKENS, help='default: %(default)s')
    parser.add_argument('--temperature', type=float, default=0.0, help='0 says the likeliest')
    parser.add_argument('--seed', type=int, help='of the draw')
    parser.add_argument(
        '--json-schema',
        type=Path,
        metavar='FILE',
        help='answer in JSON that fits the JSON Schema in this file',
    )
    common.add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    files, questions = _split(arguments)
    given = (*files, arguments.questions, arguments.json_schema)
    output.check_outputs(arguments.json, inputs=given)
    printer = Printer(arguments.stream, output.results(arguments))
    if _are_pictures(files):
        if any(question.at is not None for question in questions):
            raise ValueError('a question at a time needs a video or a bag: images have no times')
        answers = _of_pictures(arguments, files, questions, printer)
        output.write_json(arguments.json, {'answers': [vars(answer) for answer in answers]})
        return _code(arguments, answers)
    if len(files) > 1:
        raise ValueError(f'{files[1]}: one video or bag at a time, or several images')
    source = open_source(files[0], arguments.topic)
    engine = common.load(arguments)
    try:
        record = replay(
            engine,
            source,
            questions,
            listener=Listener(piece=printer.piece, answer=printer.answer),
            progress=common.on_terminal() and not arguments.stream,
        )
    except Interrupted as stop:
        _finish(arguments, stop.record)
        raise
    _finish(arguments, record)
    return _code(arguments, record.answers)


def _finish(arguments: argparse.Namespace, record: Record) -> None:
    output.warn(record.warnings)
    output.write_json(arguments.json, record)


def _code(arguments: argparse.Namespace, answers: list[Answered]) -> int:
    """1 where JSON was asked for and what came is cut short, so that it is none."""
    cut = [answer for answer in answers if answer.finish == 'length']
    if not (arguments.json_schema and cut):
        return 0
    output.warn([f'the JSON is longer than max_tokens: {printable(cut[0].text)}'])
    return 1


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

    def __init__(self, stream: bool, file: TextIO):
        self._stream, self._file, self._begun = stream, file, False

    def piece(self, question: Question, text: str) -> None:
        if self._stream:
            before = '' if self._begun else _asked(question.text)
            common.say(before + printable(text), self._file, end='')
            self._begun = True

    def answer(self, answer: Answered) -> None:
        before = '' if self._begun else _asked(answer.question) + printable(answer.text)
        common.say(f'{before}  [{_about(answer)}]', self._file)
        self._begun = False


def _asked(question: str) -> str:
    return f'? {one_line(question)}\n= '


def _about(answer: Answered) -> str:
    cut = ', cut short' if answer.finish == 'length' else ''
    return f'at {answer.at:.1f} s, {answer.frames} frames, {answer.seconds:.2f} s{cut}'


def _split(arguments: argparse.Namespace) -> tuple[list[Path], list[Question]]:
    """Files first, then questions; ValueError when there is nothing to ask, or of nothing."""
    schema = ''
    if arguments.json_schema:
        try:
            schema = arguments.json_schema.expanduser().read_text('utf-8')
        except OSError as error:
            raise ValueError(f'--json-schema takes a file: {error}') from None
    sampling = Sampling(
        arguments.max_tokens, arguments.temperature, seed=arguments.seed, json_schema=schema
    )
    first, *rest = arguments.words
    more = list(itertools.takewhile(_looks_like_a_file, rest))
    words = rest[len(more) :]
    files = [Path(word).expanduser() for word in (first, *more)]
    for file in files:
        if not file.exists():
            raise ValueError(f'{file}: no such file')
    for word in filter(_looks_like_a_file, words):
        raise ValueError(f'{word}: expected a question; files come before all questions')
    questions = [Question(word, at, sampling=sampling) for word, at in _timed(words, arguments.at)]
    if arguments.questions:
        listed = load_questions(arguments.questions).questions
        if schema:
            listed = [replace(q, sampling=replace(q.sampling, json_schema=schema)) for q in listed]
        questions += listed
    if not questions:
        raise ValueError('ask what? expected a question behind the file')
    if any(question.at is not None and not 0 <= question.at < inf for question in questions):
        raise ValueError('--at takes seconds of stream time, 0 or more')
    return files, questions


def _timed(words: list[str], times: list[float]) -> list[tuple[str, float | None]]:
    """Each question with when to ask it; ValueError for times that belong to no question."""
    if len(words) == 1 and times:
        return [(words[0], at) for at in times]
    if len(times) > len(words):
        raise ValueError(f'--at is given {len(times)} times for {len(words)} questions')
    return list(itertools.zip_longest(words, times))


def _looks_like_a_file(word: str) -> bool:
    """It is one, or it is written like one: a typing error is no question."""
    if word.lower().endswith(SUFFIXES):
        return True
    if re.search(r'\s|\?$', word):
        return False
    try:
        return bool(re.search(r'/|\.\w{3,4}$', word)) or Path(word).expanduser().exists()
    except (OSError, ValueError):  # too long for a name
        return False


def _are_pictures(files: list[Path]) -> bool:
    return all(file.is_file() and file.suffix.lower() in PICTURE_SUFFIXES for file in files)
