"""How many answers of a run were right."""

from __future__ import annotations

from .record import Record


def score(record: Record) -> tuple[int, int]:
    """Answers that met what was expected of them, and all of which something was."""
    known = [answer.right for answer in record.answers if answer.right is not None]
    return sum(known), len(known)


def passes(record: Record, threshold: float) -> bool:
    """Whether at least this part of them was right; without expectations nothing passes."""
    right, known = score(record)
    return known > 0 and right >= threshold * known


def table(record: Record) -> str:
    """A line for each answer: when, whether right, what was asked, said and expected."""
    signs = {True: 'right', False: 'WRONG', None: '-'}
    rows = [('time', '', 'question', 'answer', 'expected')]
    for answer in record.answers:
        text = ' '.join(answer.text.split()) + (' ...' if answer.finish == 'length' else '')
        time = f'{answer.at:.1f} s'
        rows.append((time, signs[answer.right], answer.question, text, answer.expected))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        '  '.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]
    right, known = score(record)
    return '\n'.join([*(line.rstrip() for line in lines), f'{right} of {known} right'])
