"""`infinitevl report`: a page about what a model saw, said and answered, and how fast."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..replay.questions import Questions, load_questions
from ..replay.record import Record
from ..replay.report import write_report
from ..replay.run import Captioning, Interrupted, Listener
from ..replay.run import run as replay
from ..replay.score import passes, score
from ..replay.thumbnails import Thumbnails
from . import common, output

EPILOG = """
example:
  infinitevl report patrol.mp4 --questions questions.yaml -o report.html

The questions are a YAML file as `infinitevl check` takes it; without one there are captions only.
The page needs no network and no scripts. Exit code 0 when enough answers are right or nothing was
expected of them, 1 when not, both with a page; 2 when the input is at fault.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    common.add_source(parser)
    parser.add_argument('--questions', type=Path, help='YAML')
    parser.add_argument(
        '--threshold', type=float, help="part that must be right (default: the file's, else 1)"
    )
    parser.add_argument(
        '--every',
        type=float,
        default=5.0,
        metavar='SECONDS',
        help='stream time between captions; 0 for none (default: %(default)g)',
    )
    parser.add_argument(
        '-o', '--output', type=Path, required=True, metavar='FILE', help='the page'
    )
    common.add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    listed = load_questions(arguments.questions) if arguments.questions else Questions(())
    threshold = listed.threshold if arguments.threshold is None else arguments.threshold
    if not 0 <= threshold <= 1:
        raise ValueError(f'--threshold is {threshold}, expected 0 to 1')
    if not 0 <= arguments.every < float('inf'):
        raise ValueError(f'--every is {arguments.every}, expected 0 or more seconds')
    output.check_outputs(
        arguments.output, arguments.json, inputs=(arguments.source, arguments.questions)
    )
    source = common.opened(arguments)
    engine = common.load(arguments)
    thumbnails = Thumbnails()

    def finish(record: Record) -> None:
        output.warn(record.warnings)
        write_report(record, thumbnails.pictures(), arguments.output, threshold)
        output.write_json(arguments.json, record)
        print(f'Wrote {arguments.output}', file=output.results(arguments))

    try:
        record = replay(
            engine,
            source,
            listed.questions,
            Captioning(arguments.every) if arguments.every else None,
            Listener(frame=thumbnails.keep, caption=thumbnails.mark, answer=thumbnails.mark),
            progress=common.on_terminal(),
        )
    except Interrupted as stop:
        finish(stop.record)
        raise
    finish(record)
    right, known = score(record)
    if not known:
        return 0
    print(f'{right} of {known} right', file=output.results(arguments))
    return 0 if passes(record, threshold) else 1
