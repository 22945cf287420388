"""Draw how_it_works.png: what a frame and a question pass through.

Run: ./dev run python3 docs/how_it_works.py [FILE]. The same matplotlib gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

WIDTH, HEIGHT, DPI = 1400, 750, 150
INK, SOFT, LINE = '#1f2933', '#52606d', '#9aa5b1'
# Fill and edge: seeing, attention, delta rule, memory, branch.
SEEING = '#e3f2fd', '#1e6fb8'
WINDOW = '#fff3d6', '#b7791f'
DELTA = '#e6f4ea', '#2f7d46'
MEMORY = '#fbfbfc', '#52606d'
BRANCH = '#f6e8f6', '#8e3f8e'
PLAIN = '#ffffff', '#9aa5b1'


class Sheet:
    """A drawing in pixels, the origin at the top left."""

    def __init__(self, axes: Axes):
        self._axes = axes

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colours: tuple[str, str],
        dashed: bool = False,
    ) -> None:
        fill, edge = colours
        style = '--' if dashed else '-'
        self._axes.add_patch(
            FancyBboxPatch(
                (x + 8, y + 8), width - 16, height - 16, 'round,pad=8,rounding_size=9',
                facecolor=fill, edgecolor=edge, linewidth=1.3, linestyle=style,
            )
        )  # fmt: skip

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 8.5,
        colour: str = INK,
        bold: bool = False,
        left: bool = False,
    ) -> None:
        self._axes.text(
            x, y, words, color=colour, fontsize=size, va='center', ha='left' if left else 'center',
            weight='bold' if bold else 'normal', linespacing=1.35,
        )  # fmt: skip

    def arrow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        colour: str = INK,
        both: bool = False,
        bend: float = 0.0,
    ) -> None:
        self._axes.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle='<|-|>' if both else '-|>', mutation_scale=13,
                color=colour, linewidth=1.5, shrinkA=2, shrinkB=2,
                connectionstyle=f'arc3,rad={bend}',
            )
        )  # fmt: skip

    def square(self, x: float, y: float, side: float, fill: str, edge: str = 'white') -> None:
        self._axes.add_patch(
            Rectangle((x, y), side, side, facecolor=fill, edgecolor=edge, linewidth=0.8)
        )

    def dot(self, x: float, y: float, radius: float, fill: str) -> None:
        self._axes.add_patch(Circle((x, y), radius, facecolor=fill, edgecolor='none'))


def picture(sheet: Sheet, x: float, y: float) -> None:
    """A frame with others behind it: a red ball on a table."""
    for shift in (24, 12, 0):
        sheet.box(x + shift, y - shift, 112, 84, ('#f5f7fa', LINE))
    sheet.box(x + 12, y + 54, 88, 20, ('#d9c3a5', '#d9c3a5'))
    sheet.dot(x + 56, y + 38, 15, '#d64545')


def frame_path(sheet: Sheet) -> None:
    """Camera, vision tower, decoder."""
    picture(sheet, 52, 150)
    sheet.text(120, 268, 'camera frame', bold=True)
    sheet.text(120, 289, 'with its stamp', 7.5, SOFT)
    sheet.arrow((200, 186), (244, 186))

    sheet.box(246, 112, 190, 148, SEEING)
    sheet.text(341, 146, 'vision tower', 9.5, bold=True)
    sheet.text(341, 184, '448 x 448 pixels,\n32 layers', 8, SOFT)
    sheet.text(341, 230, '256 tokens', 8.5, SEEING[1], bold=True)
    sheet.arrow((436, 186), (480, 186))

    sheet.box(482, 92, 466, 188, PLAIN)
    sheet.text(715, 118, 'decoder: 36 layers, 9 blocks of 1 + 3', 9.5, bold=True)
    sheet.box(502, 142, 118, 118, WINDOW)
    sheet.text(561, 201, 'sliding-\nwindow\nattention', 8)
    for number in range(3):
        sheet.box(632 + 84 * number, 142, 76, 118, DELTA)
        sheet.text(670 + 84 * number, 201, 'Gated\nDelta\nNet', 8)
    sheet.text(916, 201, 'x 9', 10, SOFT)


def memory(sheet: Sheet) -> None:
    """What a stream leaves behind."""
    sheet.box(482, 340, 466, 190, MEMORY)
    sheet.text(715, 364, 'visual memory: 136.2 MB a camera, for ever', 9.5, bold=True)
    sheet.box(502, 386, 200, 126, WINDOW)
    sheet.text(602, 406, 'what was just seen, exactly', 7.8)
    for number in range(12):
        sheet.square(520 + 14 * number, 424, 12, WINDOW[1] if number > 2 else '#ead7ae')
    sheet.text(602, 474, 'rings of keys and values,\n8,192 tokens: 32 frames\n77.9 MB', 7.3, SOFT)
    sheet.box(714, 386, 216, 126, DELTA)
    sheet.text(822, 406, 'all that came before, in essence', 7.8)
    for number in range(7):
        for row in range(2):
            sheet.square(774 + 14 * number, 420 + 12 * row, 11, DELTA[1])
    sheet.text(
        822, 476, '27 x 16 states of 128 x 256,\ninputs of convolutions\n58.4 MB', 7.3, SOFT
    )
    sheet.arrow((602, 282), (602, 338), WINDOW[1], both=True)
    sheet.arrow((822, 282), (822, 338), DELTA[1], both=True)
    sheet.text(712, 310, 'reads and updates', 7.5, SOFT)


def question(sheet: Sheet) -> None:
    """The branch that a question is asked on."""
    sheet.box(1056, 340, 286, 190, BRANCH, dashed=True)
    sheet.text(1199, 364, 'branch', 9.5, bold=True)
    sheet.text(
        1199,
        430,
        'a copy of the memory as it is now;\n'
        'the same decoder reads the question\nand says the answer on it',
        8,
    )
    sheet.text(1199, 500, 'then it is thrown away', 7.5, SOFT)
    sheet.arrow((950, 435), (1054, 435), BRANCH[1])
    sheet.text(1002, 416, 'copy', 7.5, SOFT)

    sheet.box(1056, 112, 286, 60, PLAIN)
    sheet.text(1199, 142, '"Which room had the red ball?"', 8.5)
    sheet.text(1199, 96, 'question, caption, watch', 7.5, SOFT)
    sheet.arrow((1256, 172), (1256, 338), BRANCH[1])
    sheet.box(1056, 220, 128, 60, PLAIN)
    sheet.text(1120, 250, '"kitchen"', 8.5)
    sheet.arrow((1120, 338), (1120, 282), BRANCH[1])
    sheet.text(1186, 310, 'token by token', 7.5, SOFT)

    sheet.text(
        58, 435,
        'Each frame changes the memory in place.\nIts size does not depend on how many came.\n\n'
        'A question is asked on a copy:\nthe stream never learns of it.',
        8, SOFT, left=True,
    )  # fmt: skip


def turns(sheet: Sheet) -> None:
    """The one thread that owns the engine: frames first, tokens in between."""
    left, y, scale = 58, 658, 12.0  # pixels a millisecond
    period, frame, first_token, token = 33.3, 8.7, 4.3, 2.6  # ms, measured on an H200
    asked = 16.0
    sheet.text(left, 580, 'one thread, frames before tokens', 9.5, bold=True, left=True)
    now = 0.0
    for number in range(3):
        # A token that has begun is finished before the frame is taken.
        sheet.box(left + now * scale, y - 24, (frame - 0.3) * scale, 48, SEEING)
        sheet.text(left + (now + frame / 2) * scale, y, f'frame {number + 1}', 7.5)
        now += frame
        if number == 0:
            sheet.text(left + (now + asked) / 2 * scale, y, 'idle', 7.5, SOFT)
            sheet.box(left + asked * scale, y - 24, (first_token - 0.3) * scale, 48, BRANCH)
            sheet.text(left + (asked + first_token / 2) * scale, y, 'reads it', 6.5, BRANCH[1])
            now = asked + first_token
        while now < (number + 1) * period:
            sheet.box(left + now * scale, y - 24, (token - 0.3) * scale, 48, BRANCH)
            now += token
    sheet.arrow((left + asked * scale, y - 58), (left + asked * scale, y - 26), BRANCH[1])
    sheet.text(left + asked * scale + 12, y - 46, 'a question comes', 7.5, BRANCH[1], left=True)
    sheet.text(left + 49 * scale, y - 46, 'tokens of the answer', 7.5, BRANCH[1])
    sheet.text(
        left, y + 54, 'measured on an H200 in bfloat16: a frame takes 8.7 ms, a token 2.6 ms; at '
        '30 Hz a frame comes every 33 ms, and the time between belongs to answers',
        7.5, SOFT, left=True,
    )  # fmt: skip


def draw(path: Path) -> None:
    """Write the picture as PNG, WIDTH x HEIGHT x DPI / 100 pixels."""
    plt.rcParams['font.family'] = 'DejaVu Sans'  # comes with matplotlib
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=DPI)
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(HEIGHT, 0)
    axes.axis('off')
    sheet = Sheet(axes)
    # A white card: the page behind it may be light or dark.
    sheet.box(6, 6, WIDTH - 12, HEIGHT - 12, ('white', '#d5dae0'))
    sheet.text(58, 48, 'from a frame to an answer', 12, bold=True, left=True)
    frame_path(sheet)
    memory(sheet)
    question(sheet)
    turns(sheet)
    figure.savefig(path, dpi=DPI, transparent=False, metadata={'Software': None})
    plt.close(figure)


if __name__ == '__main__':
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix('.png'))
