"""A contact sheet: one picture of what a stream showed, what was said of it, and the answers."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, MARGIN, GAP = 1280, 48, 16
PAPER, CARD, EDGE = '#f4f5f7', '#ffffff', '#e1e4e9'
INK, SOFT, ACCENT = '#1d2530', '#667180', '#1f6f8b'
RIGHT, WRONG = '#2b7a4b', '#b3402e'
LOOKALIKES = str.maketrans({'\u2013': '-', '\u2014': '-', '\u2022': '·', 'ß': 'ss', '€': 'EUR'})

font = lru_cache(ImageFont.load_default)


@dataclass(frozen=True)
class Frame:
    """One frame of a stream: its time, picture [H, W, 3] uint8 RGB, and what was said of it."""

    seconds: float
    image: np.ndarray
    caption: str


@dataclass(frozen=True)
class Answer:
    """A question, its answer and how many seconds that took.

    `truth` is the right answer where it is known, `evidence_age` how many seconds before what it
    rests on had last been in view.
    """

    question: str
    answer: str
    seconds: float
    truth: str | None = None
    evidence_age: float | None = None


@lru_cache(maxsize=4096)
def has_glyph(character: str) -> bool:
    # No font has the last code point: this is its sign for a missing glyph.
    missing = font(16).getmask('\U0010ffff')
    return character == ' ' or bytes(font(16).getmask(character)) != bytes(missing)


def drawable(text: str) -> str:
    """The text as the font can show it: no accents, and one box for a run of missing glyphs."""
    text = unicodedata.normalize('NFKD', ' '.join(text.translate(LOOKALIKES).split()))
    kept = [letter for letter in text if unicodedata.category(letter)[0] not in 'CM']
    shown = ''.join(letter if has_glyph(letter) else '\ufffd' for letter in kept)
    return re.sub('\ufffd+', '\ufffd', shown)


def wrap(text: str, size: int, width: float, most: int) -> list[str]:
    """The text in up to `most` lines of up to `width` pixels; an ellipsis if more was cut."""
    length, lines = font(size).getlength, ['']
    for word in drawable(text)[: 1000 * most].split():
        if lines[-1] and length(f'{lines[-1]} {word}') <= width:
            lines[-1] += f' {word}'
            continue
        if lines[-1]:
            lines.append('')
        for letter in word:
            if lines[-1] and length(lines[-1] + letter) > width:
                lines.append('')
            lines[-1] += letter
    if len(lines) > most:
        last = lines[most - 1]
        while last and length(f'{last}…') > width:
            last = last[:-1]
        lines[most - 1 :] = [f'{last.rstrip()}…']
    return lines


def strip(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty part of the sheet, as wide as the sheet, and what draws on it."""
    picture = Image.new('RGB', (WIDTH, height), PAPER)
    return picture, ImageDraw.Draw(picture)


def write(draw: ImageDraw.ImageDraw, x: int, y: int, lines: list[str], size: int, ink: str) -> int:
    """Draws lines below each other and returns the y below them."""
    for line in lines:
        draw.text((x, y), line, ink, font(size))
        y += round(1.35 * size)
    return y


def draw_header(title: str, subtitle: str) -> Image.Image:
    picture, draw = strip(300)
    y = write(draw, MARGIN, MARGIN, wrap(title, 34, WIDTH - 2 * MARGIN, 2), 34, INK)
    y = write(draw, MARGIN, y + 6, wrap(subtitle, 17, WIDTH - 2 * MARGIN, 3), 17, SOFT)
    return picture.crop((0, 0, WIDTH, y + 24))


def draw_row(frames: list[Frame], width: int) -> Image.Image:
    """A row of thumbnails on cards of this width in pixels, with their times and captions."""
    box = width - 16
    images = [Image.fromarray(frame.image) for frame in frames]
    tall = round(box * min(1, max(image.height / image.width for image in images)))
    captions = [wrap(frame.caption, 14, box - 8, 3) for frame in frames]
    height = 54 + tall + 19 * max(map(len, captions))
    picture, draw = strip(height + GAP)
    for column, (frame, image, caption) in enumerate(zip(frames, images, captions, strict=True)):
        x = MARGIN + column * (width + GAP)
        draw.rounded_rectangle((x, 0, x + width - 1, height - 1), 10, CARD, EDGE)
        scale = min(box / image.width, tall / image.height)
        size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
        place = x + (width - size[0]) // 2, 8 + (tall - size[1]) // 2
        picture.paste(image.resize(size, Image.Resampling.LANCZOS), place)
        time = wrap(f'{frame.seconds:.1f} s', 14, box - 8, 1)
        y = write(draw, x + 12, 16 + tall, time, 14, ACCENT)
        write(draw, x + 12, y + 2, caption, 14, INK)
    return picture


def draw_answers(answers: list[Answer]) -> Image.Image:
    """Cards with questions and their answers, beside each other."""
    width = (WIDTH - (len(answers) - 1) * GAP - 2 * MARGIN) // len(answers)
    room = width - 140
    texts = []
    for answer in answers:
        question, reply = wrap(answer.question, 17, room, 3), wrap(answer.answer, 17, room, 6)
        age = answer.evidence_age or 0
        seen = f', last in view {age:.0f} s before' if age >= 1 else ''
        truth = '' if answer.truth is None else f'truth: {answer.truth}{seen}'
        texts.append((question, reply, wrap(truth, 15, room, 3) if truth else []))
    height = max(34 + 23 * (len(q) + len(r)) + 20 * len(t) for q, r, t in texts)
    picture, draw = strip(height + GAP)
    for column, (answer, (question, reply, truth)) in enumerate(zip(answers, texts, strict=True)):
        x = MARGIN + column * (width + GAP)
        draw.rounded_rectangle((x, 0, x + width - 1, height - 1), 10, CARD, EDGE)
        y = write(draw, x + 24, 13, question, 17, SOFT)
        y = write(draw, x + 24, y + 4, reply, 17, INK)
        write(draw, x + 24, y, truth, 15, RIGHT if answer.answer == answer.truth else WRONG)
        took = wrap(f'{answer.seconds:.2f} s', 15, 120, 1)[0]
        draw.text((x + width - 24, 14), took, ACCENT, font(15), anchor='ra')
    return picture


def contact_sheet(
    path: str | Path, title: str, subtitle: str, frames: list[Frame], answers: list[Answer]
) -> None:
    """Writes the sheet as a PNG file; of more than 24 frames, 24 spread over all of them."""
    frames = sorted(frames, key=lambda frame: frame.seconds)
    if len(frames) > 24:
        frames = [frames[round(index)] for index in np.linspace(0, len(frames) - 1, 24)]
    columns = 3 if len(frames) <= 6 else 4 if len(frames) <= 12 else 6
    width = (WIDTH - (columns - 1) * GAP - 2 * MARGIN) // columns
    strips = [draw_header(title, subtitle)]
    for first in range(0, len(frames), columns):
        strips.append(draw_row(frames[first : first + columns], width))
    abreast = 1 if len(answers) < 4 else 2
    for first in range(0, len(answers), abreast):
        strips.append(draw_answers(answers[first : first + abreast]))

    sheet, _ = strip(sum(part.height for part in strips) + MARGIN - GAP)
    y = 0
    for part in strips:
        sheet.paste(part, (0, y))
        y += part.height
    sheet.save(path, format='PNG')
