"""The messages of a bag as they were recorded: by rosbags, and of a damaged bag what is left."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Protocol

import yaml
from rosbags import rosbag1, rosbag2

from .cut import Broken, Topic
from .mcap import CutMcap
from .pictures import by_number
from .source import SourceError
from .sqlite import CutSqlite, missing

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CUT = {'.mcap': CutMcap, '.db3': CutSqlite}
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


class Part(Protocol):
    """A file of a bag, or all of them together: its topics with their numbers of messages."""

    topics: dict[Topic, int]

    def messages(self, topic: Topic) -> Iterator[tuple[int, bytes]]:
        """When each was recorded [ns], and its bytes. Raises Broken where they break off."""


class Whole:
    """A bag, or a file of one, that rosbags takes."""

    def __init__(self, path: Path):
        """Raises whatever a damaged file makes rosbags raise."""
        self.path = path
        for file in _databases(path):
            # SQLite reads zeros where a part of the last page is missing.
            if lost := missing(file):
                raise Broken(lost)
        counts: Counter[Topic] = Counter()
        with self._reader() as reader:
            for connection in reader.connections:
                counts[Topic(connection.topic, connection.msgtype)] += connection.msgcount
        self.topics = dict(counts)

    def _reader(self) -> rosbag1.Reader | rosbag2.Reader:
        return (rosbag1 if is_ros1(self.path) else rosbag2).Reader(self.path)

    def messages(self, topic: Topic) -> Iterator[tuple[int, bytes]]:
        try:
            with self._reader() as reader:
                wanted = [c for c in reader.connections if (c.topic, c.msgtype) == topic]
                if not wanted:  # which rosbags would take for all of them
                    return
                for _, time, data in reader.messages(wanted):
                    yield time, data
        except Exception as error:  # on damaged bytes it can fail in any way
            raise Broken(one_line(error)) from error


class Bag:
    """A bag in a file or folder.

    `topics` counts the messages of each: those that its metadata or index says it has, else those
    that were found. `damage` says what is wrong with it, as far as that shows before it is read.
    """

    def __init__(self, path: Path):
        """Raises SourceError, and OSError when it cannot be opened."""
        self.path = path
        self.damage: list[str] = []
        self._parts: list[Part] = []
        try:
            self._parts.append(Whole(path))
        except PermissionError:
            raise
        except Exception as error:  # on damaged bytes it can fail in any way
            self._open_parts(error)
        for file in _databases(path):
            log = file.with_name(f'{file.name}-wal')
            if log.is_file() and log.stat().st_size:
                self.damage.append(
                    f'{log.name} holds messages that are not in it yet (bring them in with '
                    f'`sqlite3 {file.name} "PRAGMA wal_checkpoint"`)'
                )
        counts: Counter[Topic] = Counter()
        for part in self._parts:
            counts.update(part.topics)
        self.topics = dict(counts)
        self.is_ros1 = is_ros1(path)

    def _open_parts(self, error: Exception) -> None:
        """Every file by itself, since the bag as a whole gave this error."""
        if not self.path.is_dir():
            if self.path.suffix not in CUT:
                if is_ros1(self.path):
                    reason = f'a ROS 1 bag that cannot be read ({one_line(error)})'
                else:
                    reason = 'compressed as a whole: give its folder, with a metadata.yaml'
                raise SourceError(f'{self.path}: {reason}') from None
            self._parts.append(CUT[self.path.suffix](self.path))
            return
        files = self._files()
        if not files:
            raise SourceError(f'{self.path}: {one_line(error)}')
        for file in files:
            if file.suffix == '.zstd':
                raise SourceError(f'{file}: a damaged compressed file ({one_line(error)})')
            try:
                self._parts.append(Whole(file))
            except Exception:
                self._parts.append(CUT[file.suffix](file))

    def _files(self) -> list[Path]:
        """The files of a folder, as its metadata orders them or, without any, by name."""
        try:
            metadata = self._metadata()
            files = [self.path / PurePath(name).name for name in metadata['relative_file_paths']]
        except FileNotFoundError:
            self.damage.append('it has no metadata.yaml')
        except (yaml.YAMLError, ValueError, TypeError, KeyError):
            self.damage.append('its metadata.yaml cannot be read')
        else:
            self.damage += [f'{f.name} is missing' for f in files if not f.is_file()]
            return [f for f in files if f.is_file() and f.suffix in (*CUT, '.zstd')]
        return sorted((f for f in self.path.iterdir() if f.suffix in CUT), key=by_number)

    def _metadata(self) -> dict[str, Any]:
        text = (self.path / 'metadata.yaml').read_text()
        return yaml.safe_load(text)['rosbag2_bagfile_information']

    def expected(self, topic: Topic) -> int | None:
        """How many messages of a topic the bag says it has, if it does."""
        try:
            told = self._metadata()['topics_with_message_count']
            (count,) = (
                int(one['message_count'])
                for one in told
                if one['topic_metadata']['name'] == topic.name
            )
        except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError):
            whole = all(isinstance(part, Whole) for part in self._parts)
            return self.topics[topic] if whole else None
        return count

    def messages(self, topic: Topic) -> Iterator[tuple[int, bytes]]:
        """When each was recorded [ns], and its bytes, of all files that can be read.

        Raises Broken at the end when something was missing.
        """
        damage = list(self.damage)
        for part in self._parts:
            try:
                yield from part.messages(topic)
            except Broken as broken:
                name = f'{part.path.name}: ' if len(self._parts) > 1 else ''
                damage.append(f'{name}{broken}')
        if damage:
            raise Broken('; '.join(damage))


def is_ros1(path: Path) -> bool:
    """Whether it is a file of ROS 1; a folder may have any name."""
    return path.suffix == '.bag' and path.is_file()


def _databases(path: Path) -> list[Path]:
    files = path.iterdir() if path.is_dir() else [path]
    return [file for file in files if file.suffix == '.db3']


def uncompressed(message: bytes) -> bytes:
    """A message's CDR: rosbag2 can compress each, and rosbags needs metadata.yaml to tell."""
    return zstd.decompress(message) if message[:4] == ZSTD_MAGIC else message


def one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200] or type(error).__name__
