"""What a trained model remembers: exact answers on held-out worlds, by the age of the evidence.

Run: python3 bench/recall.py --worlds 8 --frames 2400 --json recall.json. Three models watch the
same patrols through StreamingEngine, frame by frame: the trained hybrid; the same with its
recurrent state cleared at each window, which is what the window alone gives; and its
full-attention teacher, which watches only as long as all of the stream is inside its context.
Worlds and wordings are none of the training's. Ages are counted in frames since the newest frame
that shows the evidence.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # where the package is not installed

from infinitevl_ros.engine import Options, StreamingEngine  # noqa: E402
from infinitevl_ros.engine.sampling import Sampling  # noqa: E402
from infinitevl_ros.model.config import DELTA  # noqa: E402
from infinitevl_ros.world.patrol import Patrol, plan  # noqa: E402
from infinitevl_ros.world.questions import Observer, ask  # noqa: E402
from infinitevl_ros.world.wordings import MEMORY, PRESENT, WORDINGS  # noqa: E402

HELD_OUT = 2**32  # training's worlds have smaller seeds
FRAME_NS = 100_000_000  # ten frames a second
LONGEST_ANSWER = 40
# Ages in windows: up to one, and within a factor of two of ten and of a hundred.
BUCKETS = {'one_window': (-1, 1), 'ten_windows': (5, 20), 'hundred_windows': (50, 200)}
EDGES = tuple(2.0**i for i in range(-2, 10))  # of the curve, in windows
OFTEN = {'where': 4, 'seen': 2}  # questions of a kind in one interview, beside 1 of the others
CAPACITY = (4, 8, 12, 16, 20, 24, 28, 32, 36)
RANKS = (64, 32, 24, 16, 12, 8, 4, 2, 1)


@dataclass(frozen=True)
class Asked:
    """One question to one model. `things` are the objects that a caption has to name."""

    model: str
    kind: str
    question: str
    truth: str
    answer: str
    age: int | None
    world: int
    things: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        return self.answer == self.truth


@dataclass
class Model:
    """An engine under test; `context` is how many frames it watches, None for all.

    `rank`: questions are asked of what that many directions of each head's recurrent state hold.
    """

    name: str
    engine: StreamingEngine
    clear_every: int | None = None
    context: int | None = None
    rank: int | None = None

    def watch(
        self, patrol: Patrol, frames: np.ndarray, points: list[int], world: int
    ) -> Iterator[Asked]:
        """Take all frames, asking at `points` (frames seen); yields what was asked."""
        memory = self.engine.new_memory()
        asked = self.engine.new_memory() if self.rank else memory
        observer, rng = Observer(), np.random.default_rng(world)
        truth = itertools.islice(zip(frames, patrol.truth(), strict=True), self.context)
        for number, (frame, (view, enters)) in enumerate(truth):
            if self.clear_every and number % self.clear_every == 0:
                _clear(memory)
            self.engine.ingest(memory, frame, number * FRAME_NS)
            observer.see(view, enters)
            if number + 1 in points:
                if self.rank:
                    asked.copy_(memory)
                    _reduce(asked, self.rank)
                yield from self._interview(asked, observer, rng, world)

    def _interview(self, memory, observer: Observer, rng, world: int) -> Iterator[Asked]:
        for kind in itertools.chain(*([kind] * OFTEN.get(kind, 1) for kind in WORDINGS)):
            question = ask(observer, rng, kind, held_out=True)
            if question is None:
                continue
            answer = self.engine.ask(memory, question.text, Sampling(max_tokens=LONGEST_ANSWER))
            text = ''.join(answer)
            things = observer.event_things if kind == 'caption' else ()
            yield Asked(
                self.name, kind, question.text, question.answer, text, question.age, world, things
            )


def _recurrent(memory) -> Iterator[torch.Tensor]:
    """The recurrent state [1, heads, keys, values] of each Gated DeltaNet layer."""
    for i, kind in enumerate(memory.state.config.layer_types):
        if kind == DELTA:
            yield memory.state.layer(i, 'recurrent')


def _clear(memory) -> None:
    for state in _recurrent(memory):
        state.zero_()


def _reduce(memory, rank: int) -> None:
    """Leave the nearest matrix of that rank of each head's state."""
    for state in _recurrent(memory):
        u, s, v = torch.linalg.svd(state.float(), full_matrices=False)
        s[..., rank:] = 0
        state.copy_(u * s[..., None, :] @ v)


def _paint(seed: int, frames: int, rooms: int | None, things: int | None) -> np.ndarray:
    cv2.setNumThreads(1)
    return np.stack([picture for picture, _ in plan(seed, frames, rooms, things)])


def examine(
    models: list[Model],
    seeds: list[int],
    frames: int,
    asks: int,
    workers: int,
    rooms: int | None = None,
    things: int | None = None,
) -> list[Asked]:
    """Let the models watch a patrol per seed."""
    asked = []
    points = np.unique(np.geomspace(16, frames, asks).round().astype(int)).tolist()
    # Not forked: a fork of a process with threads, torch's, may never come to work.
    with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
        count = len(seeds)
        painted = pool.map(_paint, seeds, [frames] * count, [rooms] * count, [things] * count)
        bar = tqdm(zip(seeds, painted, strict=True), 'worlds', total=count)
        for world, pictures in bar:
            patrol = plan(world, frames, rooms, things)
            for model in models:
                asked += model.watch(patrol, pictures, points, world)
    return asked


def score(asked: list[Asked]) -> dict:
    """Share of exact answers with its 95 % interval, and the best constant answer's share."""
    right, count = sum(one.right for one in asked), len(asked)
    truths: dict[str, Counter] = {}
    for one in asked:
        truths.setdefault(one.kind, Counter())[one.truth] += 1
    chance = sum(counts.most_common(1)[0][1] for counts in truths.values())
    if not count:
        return {'accuracy': None, 'low': None, 'high': None, 'chance': None, 'questions': 0}
    low, high = wilson(right, count)
    return {
        'accuracy': right / count,
        'low': low,
        'high': high,
        'chance': chance / count,
        'questions': count,
    }


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    z = 1.96
    share, extra = right / count, z * z / count
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * (share * (1 - share) / count + extra / (4 * count)) ** 0.5
    return middle - half, middle + half


def summary(asked: list[Asked], window: int) -> dict:
    """All figures of one model; `window` in frames."""

    def aged(low: float, high: float, kinds=MEMORY) -> dict:
        return score(
            [
                one
                for one in asked
                if one.kind in kinds
                and one.age is not None
                and low * window < one.age <= high * window
            ]
        )

    captions = [one for one in asked if one.kind == 'caption' and one.things]
    named = sum(all(thing in one.answer for thing in one.things) for one in captions)
    return {
        'present': score([one for one in asked if one.kind in PRESENT]),
        **{name: aged(*limits) for name, limits in BUCKETS.items()},
        'never_seen': score([one for one in asked if one.kind == 'seen' and one.age is None]),
        'where': {name: aged(*limits, ('where',)) for name, limits in BUCKETS.items()},
        'captions_name_the_object': named / len(captions) if captions else None,
        'by_age': [
            {'windows': [low, high], **aged(low, high)}
            for low, high in zip((-1.0, *EDGES), EDGES, strict=False)
        ],
        'by_type': {kind: score([one for one in asked if one.kind == kind]) for kind in WORDINGS},
    }


@dataclass(frozen=True)
class Load:
    """Patrols of `frames` frames for the curves of capacity, `worlds` for each point."""

    engine: StreamingEngine
    worlds: int
    seed: int
    workers: int
    window: int
    frames: int = 480

    def where(self, things: int, rank: int | None = None) -> dict:
        """'Where' at ten windows with so many things, in a third as many rooms, to remember."""
        rooms = min(12, max(3, things // 3))
        seeds = [HELD_OUT + 2**20 + self.seed + 1000 * things + i for i in range(self.worlds)]
        model = Model('hybrid', self.engine, rank=rank)
        asked = examine([model], seeds, self.frames, 10, self.workers, rooms, things)
        return {
            'rooms': rooms,
            'things': things,
            **summary(asked, self.window)['where']['ten_windows'],
        }

    def by_things(self) -> list[dict]:
        """Against the number of things and rooms to be remembered."""
        return until_half(self.where(things) for things in CAPACITY)

    def by_rank(self) -> list[dict]:
        """With the most things, against how many directions of each head's state are left."""
        return until_half({'rank': rank, **self.where(CAPACITY[-1], rank)} for rank in RANKS)


def until_half(points: Iterator[dict]) -> list[dict]:
    """The points of a curve up to the first under one half."""
    curve = []
    for point in points:
        curve.append(point)
        if point['accuracy'] is not None and point['accuracy'] < 0.5:
            break
    return curve


def table(models: dict[str, dict]) -> str:
    """The figures as text."""

    def cell(figures: dict) -> str:
        if not figures['questions']:
            return f'{"-":>21}'
        share, low, high = (100 * figures[name] for name in ('accuracy', 'low', 'high'))
        return f'{share:6.1f} ({low:5.1f} to {high:5.1f})'

    rows = [f'{"% exact (95 % interval)":24}' + ''.join(f'{name:>24}' for name in models)]
    for title in ('present', *BUCKETS, 'never_seen'):
        rows.append(f'{title:24}' + ''.join(f'{cell(m[title]):>24}' for m in models.values()))
    for title in BUCKETS:
        cells = (cell(m['where'][title]) for m in models.values())
        rows.append(f'{"where, " + title:24}' + ''.join(f'{text:>24}' for text in cells))
    for kind in WORDINGS:
        cells = (cell(m['by_type'][kind]) for m in models.values())
        rows.append(f'  {kind:22}' + ''.join(f'{text:>24}' for text in cells))
    return '\n'.join(rows)


def draw(models: dict[str, dict], curves: dict[str, list], picture: Path) -> None:
    """Accuracy against the age of the evidence, and against what is to be remembered and where."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    shown = [name for name, curve in curves.items() if curve]
    columns = 1 + len(shown)
    figure, _ = pyplot.subplots(1, columns, figsize=(3 + 4 * columns, 4.2), dpi=110)
    left, *others = figure.axes
    for name, figures in models.items():
        bins = [one for one in figures['by_age'] if one['questions'] >= 5]
        _line(left, [_middle(one) for one in bins], bins, name)
    chance = [one for one in models['hybrid']['by_age'] if one['questions'] >= 5]
    middle = [_middle(one) for one in chance]
    left.plot(middle, [one['chance'] for one in chance], ':', color='grey', label='best constant')
    left.set(xscale='log', xlabel='age of the evidence, windows', ylabel='exact answers')
    left.legend(frameon=False)
    titles = {'things': 'things to remember', 'rank': 'directions kept of each state (of 64)'}
    for ax, name in zip(others, shown, strict=True):
        _line(ax, [one[name] for one in curves[name]], curves[name])
        ax.set(xlabel=titles[name], ylabel='"where", ten windows later')
    for ax in figure.axes:
        ax.set_ylim(0, 1.02)
        ax.grid(alpha=0.3)
        ax.spines[['top', 'right']].set_visible(False)
    if 'rank' in shown:
        ax, ranks = others[shown.index('rank')], [one['rank'] for one in curves['rank']]
        ax.set_xscale('log', base=2)
        ax.set_xticks(ranks, ranks)
    figure.tight_layout()
    figure.savefig(picture)
    pyplot.close(figure)


def _middle(one: dict) -> float:
    low, high = one['windows']
    return (max(low, 0.125) * high) ** 0.5


def _line(ax, places: list[float], points: list[dict], label: str | None = None) -> None:
    """Accuracies with their intervals."""
    (line,) = ax.plot(places, [one['accuracy'] for one in points], marker='o', label=label)
    low, high = ([one[end] for one in points] for end in ('low', 'high'))
    ax.fill_between(places, low, high, alpha=0.15, color=line.get_color())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--worlds', type=int, default=4)
    parser.add_argument('--frames', type=int, default=2400)
    parser.add_argument('--asks', type=int, default=16, help='interviews in each world')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--plot', type=Path)
    parser.add_argument('--capacity', type=int, default=0, help='worlds a point of those curves')
    parser.add_argument('--model', type=Path, default=ROOT / 'models/tiny')
    parser.add_argument('--teacher', type=Path, default=ROOT / 'models/tiny_teacher')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--workers', type=int, default=2, help='processes that paint')
    parser.add_argument('--log', type=Path, help='write every question and answer here (JSONL)')
    arguments = parser.parse_args()
    two = Options(cameras=2)  # what is reduced is a copy
    engine = StreamingEngine.from_checkpoint(arguments.model, arguments.device, options=two)
    taught = StreamingEngine.from_checkpoint(arguments.teacher, arguments.device)
    window, context = (
        e.weights.config.sliding_window // e.tokens_per_frame for e in (engine, taught)
    )
    models = [Model('hybrid', engine), Model('cleared', engine, clear_every=window)]
    models.append(Model('teacher', taught, context=context))
    seeds = [HELD_OUT + arguments.seed * 10_000 + i for i in range(arguments.worlds)]
    asked = examine(models, seeds, arguments.frames, arguments.asks, arguments.workers)
    figures = {
        model.name: summary([one for one in asked if one.model == model.name], window)
        for model in models
    }
    print(table(figures))
    curves = {'things': [], 'rank': []}
    if arguments.capacity:
        load = Load(engine, arguments.capacity, arguments.seed, arguments.workers, window)
        curves = {'things': load.by_things(), 'rank': load.by_rank()}
    for name, curve in curves.items():
        for point in curve:
            print(f'{point["things"]} things, {name} {point[name]}: {point["accuracy"]:.3f}')
    if arguments.log:
        arguments.log.write_text(''.join(json.dumps(vars(one)) + '\n' for one in asked))
    if arguments.plot:
        draw(figures, curves, arguments.plot)
    if arguments.json:
        settings = {
            name: getattr(arguments, name) for name in ('worlds', 'frames', 'asks', 'seed')
        }
        report = {**settings, 'window_frames': window, 'context_frames': context}
        report |= {'models': figures, 'capacity': curves['things'], 'rank': curves['rank']}
        arguments.json.write_text(json.dumps(report, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
