"""Draws how a run went: loss and exact answers over the steps of all stages."""

from __future__ import annotations

import json
from pathlib import Path


def draw_curve(log: Path, picture: Path) -> None:
    """A picture of a run's log.jsonl."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6), dpi=110)
    for stage in dict.fromkeys(line['stage'] for line in lines):
        part = [line for line in lines if line['stage'] == stage]
        upper.plot(*_points(part, 'loss'), label=stage)
        lower.plot(*_points(part, 'exact'))
    upper.set(ylabel='loss', yscale='log')
    upper.legend(frameon=False, ncols=6)
    lower.set(ylabel='questions answered exactly', xlabel='step', ylim=(0, 1))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture)
    pyplot.close(figure)


def _points(lines: list[dict], name: str) -> tuple[list, list]:
    """Steps and values of what some of the lines tell; a stage may ask nothing."""
    told = [line for line in lines if name in line]
    return [line['clock'] for line in told], [line[name] for line in told]
