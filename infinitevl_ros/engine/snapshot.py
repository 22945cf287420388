"""Snapshot: a visual memory at one moment, on the host and in a file."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 'infinitevl_ros.visual_memory'
VERSION = '3'


class MemoryFileError(ValueError):
    """A saved memory that cannot be used; the message says what was found and expected."""


@dataclass(frozen=True)
class Snapshot:
    """What a saved memory holds; made by VisualMemory.snapshot, taken over by its restore.

    `metadata` are texts by name, `source` says in messages where it came from. Nothing here needs
    the engine's thread: files are written and read while frames go on.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    source: str = 'a memory'

    def write(self, path: str | Path) -> None:
        """Write to a safetensors file, whole or not at all. Raises OSError."""
        path = Path(path).expanduser()
        if not path.parent.is_dir():
            raise FileNotFoundError(f'{path.parent}: no such folder to save a memory in')
        temporary = path.with_name(f'.{path.name}.{os.getpid()}-{threading.get_ident()}')
        try:
            save_file(
                self.tensors, temporary, {'format': FORMAT, 'version': VERSION, **self.metadata}
            )
            with open(temporary, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except SafetensorError as error:  # of a disk that is full, say
            temporary.unlink(missing_ok=True)
            raise OSError(f'{path}: {error}') from None
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, path: str | Path) -> Snapshot:
        """Read what `write` wrote. Raises MemoryFileError."""
        path = Path(path).expanduser()
        if not path.is_file():
            found = 'a folder, expected a file' if path.is_dir() else 'no such file'
            raise MemoryFileError(f'{path}: {found}')
        try:
            with safe_open(path, framework='pt') as file:
                metadata = file.metadata() or {}
                if metadata.pop('format', None) != FORMAT:
                    raise MemoryFileError(f'{path}: not a saved visual memory')
                version = metadata.pop('version', None)
                if version != VERSION:
                    raise MemoryFileError(
                        f'{path}: version {version}; this software reads {VERSION}'
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise MemoryFileError(f'{path}: not a readable memory: {error}') from None
        return cls(tensors, metadata, str(path))
