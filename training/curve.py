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
        clock = [line['clock'] for line in part]
        upper.plot(clock, [line['loss'] for line in part], label=stage)
        lower.plot(clock, [line['exact'] for line in part])
    upper.set(ylabel='loss', yscale='log')
    upper.legend(frameon=False, ncols=6)
    lower.set(ylabel='questions answered exactly', xlabel='step', ylim=(0, 1))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture)
    pyplot.close(figure)
