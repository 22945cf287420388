"""How a stream is run: what a user of StreamingEngine may choose."""

from __future__ import annotations

from dataclasses import dataclass

POSITIONS = ('published', 'rebased')
PROMPT_LAYOUTS = ('header_first', 'published')


@dataclass(frozen=True)
class Options:
    """Choices that hold for an engine's whole life.

    `cameras`: memories that may exist at a time on a GPU, where all are allocated at the start
    (on the CPU there is no limit). `branches`: answers that may be under way at a time.

    `frames_per_grid`: 2 puts two camera frames into one picture of the network (its video mode),
    which halves the cost of a frame; every second frame then waits for the next.

    `positions`: where a question stands. `published`: behind the largest position of the stream,
    which is soon its time, so that a question's distance to the picture's rows and columns grows
    by 2 a second. `rebased`: as if the newest frame were the stream's first, so that it never
    grows; distances in time are the same.

    `prompt_layout`: `header_first` opens the stream with the chat template's header, so that all
    frames stand in the user's turn; `published` opens it with <|vision_start|> alone and puts the
    whole template behind the video, as the published demo does.

    `graphs`: run the GPU's steps as CUDA graphs; without them every kernel is launched by itself.
    """

    cameras: int = 1
    branches: int = 2
    frames_per_grid: int = 1
    positions: str = 'published'
    prompt_layout: str = 'header_first'
    graphs: bool = True

    def __post_init__(self) -> None:
        for name in ('cameras', 'branches'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}, expected at least 1')
        for name, choices in (
            ('frames_per_grid', (1, 2)),
            ('positions', POSITIONS),
            ('prompt_layout', PROMPT_LAYOUTS),
        ):
            if getattr(self, name) not in choices:
                expected = ' or '.join(map(repr, choices))
                raise ValueError(f'{name} is {getattr(self, name)!r}, expected {expected}')

    @property
    def stream(self) -> str:
        """Those that what a memory holds depends on, in words."""
        return (
            f'prompt_layout {self.prompt_layout}, positions {self.positions}, '
            f'frames_per_grid {self.frames_per_grid}'
        )
