"""How many answers of a run were right."""

from __future__ import annotations

import itertools
import textwrap

from .record import Record, one_line

WIDEST = 40  # characters of a column; longer texts go on below


def score(record: Record) -> tuple[int, int]:
    """Answers that met what was expected of them, and all of which something was."""
    known = [answer.right for answer in record.answers if answer.right is not None]
    return sum(known), len(known)


def passes(record: Record, threshold: float) -> bool:
    """Whether at least this part of them was right; without expectations nothing passes."""
    right, known = score(record)
    # The quotient, rounded once, is what a person writes: 0.55 * 100 is more than 55.
    return known > 0 and right / known >= threshold


def table(record: Record) -> str:
    """A row for each answer: when, whether right, what was asked, said and expected."""
    signs = {True: 'right', False: 'WRONG', None: '-'}
    rows = [('time', '', 'question', 'answer', 'expected')]
    for answer in record.answers:
        text = one_line(answer.text) + (' ...' if answer.finish == 'length' else '')
        cells = signs[answer.right], one_line(answer.question), text, one_line(answer.expected)
        rows.append((f'{answer.at:.1f} s', *cells))
    wrapped = [[textwrap.wrap(cell, WIDEST) or [''] for cell in row] for row in rows]
    widths = [
        max(len(line) for cell in column for line in cell) for column in zip(*wrapped, strict=True)
    ]
    lines = [
        '  '.join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for row in wrapped
        for parts in itertools.zip_longest(*row, fillvalue='')
    ]
    right, known = score(record)
    return '\n'.join([*lines, f'{right} of {known} right'])
