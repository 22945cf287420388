"""A report of a run: one page that needs nothing but itself, neither network nor scripts."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ..engine.memory import LONGEST_GAP
from .charts import Plot, clock, duration, key, size, thin, value_ticks
from .record import Answered, Record
from .score import passes, score
from .thumbnails import MAX_THUMBNAILS, shrink

NANOSECONDS = 1_000_000_000
# No network, no scripts, whatever a file name or a model's words may hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# What HTML forbids in a text, and halves of characters, which UTF-8 does.
UNPRINTABLE = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]')


def write_report(
    record: Record,
    thumbnails: Sequence[tuple[int, np.ndarray]],
    path: str | Path,
    threshold: float | None = None,
) -> None:
    """Write the page. Raises OSError.

    `thumbnails` are stamps and pictures (RGB uint8 [h, w, 3]); of more than MAX_THUMBNAILS as many
    are shown. `threshold` is the part of answers, 0 to 1, that had to be right.
    """
    Path(path).write_text(Page(record, thumbnails, threshold).html(), encoding='utf-8')


class Page:
    """The parts of a report. Whatever comes from the record passes through `words`."""

    def __init__(
        self,
        record: Record,
        thumbnails: Sequence[tuple[int, np.ndarray]],
        threshold: float | None,
    ):
        self.record, self.threshold = record, threshold
        self.seconds = np.array([frame.seconds for frame in record.frames])
        # Stream time as the memory counts it, see replay/run.py.
        stamps = [frame.stamp for frame in record.frames]
        gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
        passed = itertools.accumulate((g if 0 <= g <= LONGEST_GAP else 0 for g in gaps), initial=0)
        self.times = np.array(list(passed)[: len(stamps)]) / NANOSECONDS
        self.time_of = dict(zip(reversed(stamps), self.times[::-1].tolist(), strict=True))
        self.length = float(self.times[-1]) if stamps else 0.0
        self.captions = {said.stamp: said for said in record.captions}
        self.asked: dict[int, list[int]] = {}
        for number, answer in enumerate(record.answers, start=1):
            self.asked.setdefault(answer.stamp, []).append(number)
        self.thumbnails = self._choose(thumbnails)

    def _choose(self, thumbnails: Iterable[tuple[int, np.ndarray]]) -> dict[int, np.ndarray]:
        """By time and bounded; those of captions and answers, and no others right beside them."""
        pictures = {stamp: pixels for stamp, pixels in thumbnails if stamp in self.time_of}
        told = {stamp for stamp in pictures if stamp in self.captions or stamp in self.asked}
        times = np.array([self.time_of[stamp] for stamp in told])
        stamps = [
            stamp
            for stamp in sorted(pictures, key=self.time_of.get)
            if stamp in told or not (np.abs(times - self.time_of[stamp]) < self.length / 30).any()
        ]
        if len(stamps) > MAX_THUMBNAILS:
            places = np.linspace(0, len(stamps) - 1, MAX_THUMBNAILS).round().astype(int)
            stamps = [stamps[place] for place in places]
        return {stamp: pictures[stamp] for stamp in stamps}

    def html(self) -> str:
        name = escape(clean(self.record.source))
        style = Path(__file__).with_name('report.css').read_text(encoding='utf-8')
        sections = (
            self.header(),
            self.warnings(),
            self.stream(),
            self.answers(),
            self.captions_said(),
            self.charts(),
            self.versions(),
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f'<title>{name} - infinitevl report</title>\n<style>\n{style}</style>\n</head>\n'
            f'<body>\n{"".join(filter(None, sections))}</body>\n</html>\n'
        )

    def header(self) -> str:
        record = self.record
        kind = f'{record.kind}, topic {record.topic}' if record.topic else record.kind
        facts = {
            'Source': kind,
            'Rate': self._rate(),
            'Model': record.model,
            'Device': record.device,
            'Date': record.date,
        }
        listed = ''.join(f'<div><dt>{k}</dt><dd>{words(v)}</dd></div>' for k, v in facts.items())
        tiles = (
            self._score(),
            self._length(),
            self._speed(),
            self._dropped(),
            self._waits(),
            self._memory(),
        )
        return (
            '<header>\n<p class="brand">infinitevl report</p>\n'
            f'<h1>{words(record.source)}</h1>\n<dl class="facts">{listed}</dl>\n'
            f'<ul class="tiles">{"".join(filter(None, tiles))}</ul>\n</header>\n'
        )

    def _score(self) -> str:
        right, known = score(self.record)
        if not known:
            return ''
        threshold = 1.0 if self.threshold is None else self.threshold
        passed = passes(self.record, threshold)
        needed = '' if self.threshold is None else f', {100 * threshold:.3g}% needed'
        note = f'{"✓" if passed else "✗"} {100 * right / known:.3g}%{needed}'
        return tile('Right answers', f'{right} of {known}', note, 'good' if passed else 'bad')

    def _rate(self) -> str:
        rates = []
        if self.length:
            rates.append(f'{(len(self.times) - 1) / self.length:.1f} frames/s')
        if self.seconds.any():
            rates.append(f'taken at {1 / self.seconds.mean():.1f} frames/s')
        return ', '.join(rates) or 'unknown'

    def _length(self) -> str:
        return tile('Stream', clock(self.length), counted(len(self.times), 'frame'))

    def _speed(self) -> str:
        if not len(self.seconds):
            return ''
        p99 = duration(np.percentile(self.seconds, 99))
        return tile('Frame, median', duration(np.median(self.seconds)), f'p99 {p99}')

    def _dropped(self) -> str:
        dropped, frames = self.record.dropped_live, len(self.record.frames)
        return tile('Dropped if live', f'{dropped:,}', f'of {counted(frames, "frame")}')

    def _waits(self) -> str:
        if not self.record.answers:
            return ''
        first = np.median([answer.first_token for answer in self.record.answers])
        last = np.median([answer.seconds for answer in self.record.answers])
        return tile('First word, median', duration(first), f'last word {duration(last)}')

    def _memory(self) -> str:
        sizes = [frame.memory_bytes for frame in self.record.frames]
        if not sizes:
            return ''
        same = min(sizes) == max(sizes)
        note = 'from first to last frame' if same else f'at most, {size(sizes[0])} at first'
        return tile('Memory', size(max(sizes)), note, '' if same else 'bad')

    def warnings(self) -> str:
        found = self.record.warnings
        if not found:
            return ''
        items = ''.join(f'<li>{words(warning)}</li>' for warning in found)
        return f'<section class="warnings">\n<h2>⚠ Warnings</h2>\n<ul>{items}</ul>\n</section>\n'

    def stream(self) -> str:
        if not self.record.frames:
            return section('Stream', '<p class="note">No frame was read.</p>')
        figures = ''.join(map(self._thumbnail, self.thumbnails))
        return section('Stream', f'{self._timeline()}<ol class="sheet">{figures}</ol>')

    def _thumbnail(self, stamp: int) -> str:
        time, caption = clock(self.time_of[stamp]), self.captions.get(stamp)
        numbers = self.asked.get(stamp, [])
        badge = f' <b>{span(numbers)}</b>' if numbers else ''
        text = f'<p class="said">{said(caption.text)}</p>' if caption else ''
        picture = Image.fromarray(shrink(self.thumbnails[stamp]))
        file = io.BytesIO()
        picture.convert('RGB').save(file, 'JPEG', quality=78, optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
        return (
            f'<li id="at{stamp}"><img src="data:image/jpeg;base64,{data}" alt="Frame at {time}" '
            f'width="{picture.width}" height="{picture.height}">'
            f'<p class="time">{time}{badge}</p>{text}</li>\n'
        )

    def _timeline(self) -> str:
        """When the pictures were taken, captions said and questions asked."""
        plot = Plot('When the pictures were, captions and questions', 0, self.length)
        rows = {'pictures': 12, 'captions': 36, 'questions': 60}
        for name, y in rows.items():
            plot.parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
            plot.parts.append(f'<text class="beside" x="-10" y="{y}" dy="4">{name}</text>')
        times = {
            'pictures': [self.time_of[stamp] for stamp in self.thumbnails],
            'captions': [said.at for said in self.record.captions],
        }
        for kind, values in times.items():
            y = rows[kind]
            for x in sorted(set(map(plot.x, values))):
                plot.parts.append(
                    f'<line class="{kind}" x1="{x}%" x2="{x}%" y1="{y - 6}" y2="{y + 6}"/>'
                )
        for x in sorted({plot.x(answer.at) for answer in self.record.answers}):
            plot.parts.append(f'<circle class="question" cx="{x}%" cy="60" r="4"/>')
        for numbers in self._neighbours():
            x = plot.x(self.record.answers[numbers[0] - 1].at)
            anchor = 'start' if x < 8 else 'end' if x > 92 else 'middle'
            plot.parts.append(
                f'<text x="{x}%" y="80" class="{anchor}">Q{numbers[0]}'
                f'<tspan class="more">{self._more(numbers)}</tspan></text>'
            )
        plot.time_axis()
        return f'<div class="timeline">{plot.svg()}</div>'

    def _neighbours(self) -> list[list[int]]:
        """The numbers of the questions, those asked too close to be told apart in one list."""
        groups: list[list[int]] = []
        began = -np.inf
        for number, answer in enumerate(self.record.answers, start=1):
            if answer.at - began > self.length / 7:
                groups.append([])
                began = answer.at
            groups[-1].append(number)
        return groups

    def _more(self, numbers: list[int]) -> str:
        """The last of them, and how they were answered."""
        rights = [self.record.answers[number - 1].right for number in numbers]
        counts = ((rights.count(True), '✓'), (rights.count(False), '✗'))
        marks = (f' {n if len(rights) > 1 else ""}{mark}' for n, mark in counts if n)
        return span(numbers).removeprefix(f'Q{numbers[0]}') + ''.join(marks)

    def answers(self) -> str:
        if not self.record.answers:
            return ''
        items = (self._answer(*one) for one in enumerate(self.record.answers, start=1))
        return section('Questions and answers', f'<ol class="answers">{"".join(items)}</ol>')

    def _answer(self, number: int, answer: Answered) -> str:
        time = clock(answer.at)
        if answer.stamp in self.thumbnails:
            time = f'<a href="#at{answer.stamp}">{time}</a>'
        mark = {True: 'right', False: 'wrong', None: ''}[answer.right]
        verdict = {'right': '✓ right', 'wrong': '✗ wrong'}.get(mark, '')
        cut = ', cut there' if answer.finish == 'length' else ''
        expected = f'<p>Expected: {words(answer.expected)}</p>' if answer.expected else ''
        return (
            f'<li class="{mark or "open"}"><p class="when"><b>Q{number}</b> {time}</p>\n'
            f'<div><p class="question">{words(answer.question)}</p>'
            f'<p class="answer">{said(answer.text)}</p></div>\n'
            f'<div class="about">{expected}'
            f'<p class="note">First word after {duration(answer.first_token)}, last after '
            f'{duration(answer.seconds)}<br>{counted(answer.tokens, "token")}{cut}, '
            f'{counted(answer.frames, "frame")} seen</p></div>\n'
            f'<p class="verdict">{verdict}</p></li>\n'
        )

    def captions_said(self) -> str:
        if not self.record.captions:
            return ''
        items = ''.join(
            f'<li><p class="when">{clock(one.first_at)} &ndash; {clock(one.at)}</p>'
            f'<p>{said(one.text)}</p>'
            f'<p class="note">{duration(one.seconds)}</p></li>\n'
            for one in self.record.captions
        )
        return section('Captions', f'<ol class="captions">{items}</ol>')

    def charts(self) -> str:
        charts = [self._frame_chart(), self._memory_chart()] if self.record.frames else []
        if self.record.answers:
            charts.insert(1, self._answer_chart())
        return section('Time and memory', f'<div class="charts">{"".join(charts)}</div>')

    def _frame_chart(self) -> str:
        times, seconds = thin(self.times, self.seconds)
        median, p99 = np.percentile(self.seconds, [50, 99])
        longest = int(self.seconds.argmax())
        # A first frame that warms things up would press all others flat.
        ticks = value_ticks(min(self.seconds[longest], 3 * p99))
        plot = Plot('Seconds per frame over stream time', 0, self.length, ticks[-1])
        plot.value_axis(ticks, duration)
        plot.line(times, seconds, 'each')
        plot.level(p99, 'p99')
        plot.level(median, 'median')
        above = times[seconds > ticks[-1]]
        for time in above:
            plot.over(time)
        plot.time_axis()
        most = f'{duration(self.seconds[longest])} at {clock(self.times[longest])}'
        keys = [
            key('each', 'frame'),
            key('median', f'median {duration(median)}'),
            key('p99', f'p99 {duration(p99)}'),
        ]
        if len(above):
            keys.append(key('over', 'longer than the plot is high'))
        return chart('Time per frame', f'Longest: {most}.', plot, keys)

    def _answer_chart(self) -> str:
        answers = self.record.answers
        ticks = value_ticks(max(answer.seconds for answer in answers))
        plot = Plot('Time to the words of each answer', 0.5, len(answers) + 0.5, ticks[-1])
        plot.value_axis(ticks, duration)
        radius = 4 if len(answers) <= 50 else 2
        for number, answer in enumerate(answers, start=1):
            waits = f'first word {duration(answer.first_token)}, last {duration(answer.seconds)}'
            plot.stem(number, answer.first_token, answer.seconds, radius, f'Q{number}: {waits}')
        for number in range(1, len(answers) + 1, -(-len(answers) // 10)):
            plot.label(number, f'Q{number}')
        slowest = max(range(len(answers)), key=lambda index: answers[index].seconds)
        note = f'Longest: Q{slowest + 1}, {duration(answers[slowest].seconds)}.'
        keys = [key('first', 'first word'), key('last', 'last word')]
        return chart('Time per answer', note, plot, keys)

    def _memory_chart(self) -> str:
        sizes = np.array([frame.memory_bytes for frame in self.record.frames])
        ticks = value_ticks(sizes.max())
        plot = Plot('Bytes of memory over stream time', 0, self.length, ticks[-1])
        plot.value_axis(ticks, size)
        plot.line(*thin(self.times, sizes), 'each')
        plot.time_axis()
        if sizes.min() == sizes.max():
            note = f'{sizes[0]:,} bytes from first to last frame.'
        else:
            note = f'{sizes[0]:,} bytes at first, {sizes[-1]:,} at last, {sizes.max():,} at most.'
        return chart('Memory', note, plot, [])

    def versions(self) -> str:
        items = ''.join(
            f'<div><dt>{words(name)}</dt><dd>{words(version)}</dd></div>'
            for name, version in self.record.versions.items()
        )
        return f'<footer>\n<h2>Versions</h2>\n<dl class="facts">{items}</dl>\n</footer>\n'


def words(text: str) -> str:
    """Any text as HTML: escaped, its direction of writing kept to itself."""
    return f'<bdi>{escape(clean(text))}</bdi>'


def clean(text: str) -> str:
    return UNPRINTABLE.sub('�', text)


def said(text: str) -> str:
    return words(text) if text.strip() else '<i>nothing said</i>'


def counted(count: int, thing: str) -> str:
    return f'{count:,} {thing}{"" if count == 1 else "s"}'


def span(numbers: list[int]) -> str:
    """Q3, or with a dash Q4 to 9."""
    return f'Q{numbers[0]}' if len(numbers) == 1 else f'Q{numbers[0]}&ndash;{numbers[-1]}'


def section(title: str, content: str) -> str:
    return f'<section>\n<h2>{title}</h2>\n{content}\n</section>\n'


def tile(name: str, value: str, note: str, kind: str = '') -> str:
    """A figure to read from afar."""
    return f'<li class="{kind}"><p>{name}</p><p class="value">{value}</p><p>{note}</p></li>'


def chart(title: str, note: str, plot: Plot, keys: list[str]) -> str:
    legend = f'<ul class="key">{"".join(keys)}</ul>' if keys else ''
    return (
        f'<figure>\n<figcaption><h3>{title}</h3><p>{note}</p></figcaption>\n'
        f'{plot.svg()}{legend}\n</figure>\n'
    )
