"""`infinitevl check`: a bag or a video as a test of what a model sees and remembers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..replay.questions import load_questions
from ..replay.record import Record
from ..replay.run import Interrupted
from ..replay.run import run as replay
from ..replay.score import passes, table
from . import common, output

EPILOG = """
The questions are a YAML file:
  threshold: 0.9
  questions:
    - {ask: 'Which room is this?', at: 12.5, expect: kitchen}
    - {ask: 'What is on the table?', expect: {any: [a cup, a red cup]}}
    - {ask: 'What did you see?', expect: {contains: ball}}      # or {regex: 'red|crimson'}

Exit code 0 when enough answers are right, 1 when not, 2 when the input is at fault.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    common.add_source(parser)
    parser.add_argument('--questions', type=Path, required=True, help='YAML, see below')
    parser.add_argument(
        '--threshold', type=float, help="part that must be right (default: the file's, else 1)"
    )
    common.add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    listed = load_questions(arguments.questions)
    threshold = listed.threshold if arguments.threshold is None else arguments.threshold
    output.check_outputs(arguments.json, inputs=(arguments.source, arguments.questions))
    if not 0 <= threshold <= 1:
        raise ValueError(f'--threshold is {threshold}, expected 0 to 1')
    if not any(question.expected for question in listed.questions):
        raise ValueError(
            f'{arguments.questions}: no question has "expect:", so nothing is checked'
        )
    source = common.opened(arguments)
    engine = common.load(arguments)
    try:
        record = replay(engine, source, listed.questions, progress=common.on_terminal())
    except Interrupted as stop:
        _show(arguments, stop.record)
        raise
    _show(arguments, record)
    if passes(record, threshold):
        return 0
    print(f'infinitevl check: under the threshold of {threshold:g}', file=sys.stderr)
    return 1


def _show(arguments: argparse.Namespace, record: Record) -> None:
    output.warn(record.warnings)
    print(table(record), file=output.results(arguments))
    output.write_json(arguments.json, record)
