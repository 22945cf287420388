"""What the commands share that look at files with a model."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ..engine import StreamingEngine
from ..media.source import Source, open_source
from ..model.default import default_checkpoint


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--model', type=Path, help='checkpoint folder (default: models/tiny)')
    parser.add_argument('--device', default='auto', help='cpu, cuda, ... (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='write everything to this file')


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', type=Path, metavar='VIDEO|BAG', help='video, bag or folder')
    parser.add_argument('--topic', default='', help='of a bag that has several with images')


def load(arguments: argparse.Namespace) -> StreamingEngine:
    """The engine that `add_model`'s arguments name."""
    import torch

    device = arguments.device
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if not arguments.model:
        print(
            'The small model knows its rendered world alone: of other pictures its words are '
            'guesses (--model names a checkpoint).',
            file=sys.stderr,
        )
    return StreamingEngine.from_checkpoint(arguments.model or default_checkpoint(), device)


def opened(arguments: argparse.Namespace) -> Source:
    """The source that `add_source`'s arguments name."""
    return open_source(arguments.source, arguments.topic)


def write_json(path: Path | None, value: Any) -> None:
    """Write a data class or plain values, if a path was given."""
    if path:
        if dataclasses.is_dataclass(value):
            value = dataclasses.asdict(value)
        path.write_text(json.dumps(value, indent=2) + '\n')


def warn(warnings: list[str]) -> None:
    for warning in warnings:
        print(f'warning: {warning}', file=sys.stderr)


def on_terminal() -> bool:
    """Whether a progress bar has somewhere to be."""
    return sys.stderr.isatty()
