"""The messages of a bag as they were recorded: by rosbags, and of a damaged bag what is left.

rosbags reads a bag by its index at the end, which a recording that broke off does not have: of
such a one the records are read in their order, until they end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader

STORAGES = ('.mcap', '.db3')


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: its message type, and how many messages there are."""

    name: str
    type: str
    messages: int


@dataclass(frozen=True)
class Recorded:
    """A message in CDR, and when it was recorded [ns]."""

    topic: str
    time: int
    data: bytes


class Bag:
    """A bag in a file or folder. `damage` says what is wrong with it; '' if nothing is known."""

    def __init__(self, path: Path):
        """Raises OSError when it cannot be opened at all."""
        self.path, self.damage = path, ''
        try:
            with Reader(path) as reader:
                self.topics = [Topic(c.topic, c.msgtype, c.msgcount) for c in reader.connections]
        except OSError:
            raise
        except Exception as error:  # on damaged bytes it can fail in any way
            self.damage = f'its index cannot be read ({_line(error)})'
            self.topics = self._salvaged_topics()

    def messages(self, topics: list[str]) -> Iterator[Recorded]:
        """Those of some topics, in the order of recording; all that can be read.

        What breaks off in the middle is told by `damage` afterwards.
        """
        if self.damage:
            yield from (m for _, m in self._salvaged() if m and m.topic in topics)
            return
        try:
            with Reader(self.path) as reader:
                wanted = [c for c in reader.connections if c.topic in topics]
                for connection, time, data in reader.messages(wanted):
                    yield Recorded(connection.topic, time, bytes(data))
        except GeneratorExit:
            raise
        except Exception as error:
            self.damage = f'it breaks off ({_line(error)})'

    def _salvaged_topics(self) -> list[Topic]:
        types: dict[str, str] = {}
        counts: dict[str, int] = {}
        for (name, kind), message in self._salvaged():
            types[name] = kind
            counts[name] = counts.get(name, 0) + (message is not None)
        return [Topic(name, kind, counts[name]) for name, kind in types.items()]

    def _salvaged(self) -> Iterator[tuple[tuple[str, str], Recorded | None]]:
        """(name, type) of a topic, and a message of it or None where it is only declared."""
        files = [self.path]
        if self.path.is_dir():
            files = sorted(f for f in self.path.iterdir() if f.suffix in STORAGES)
        for file in files:
            yield from (_salvaged_mcap if file.suffix == '.mcap' else _salvaged_sqlite)(file)


def _salvaged_mcap(file: Path) -> Iterator[tuple[tuple[str, str], Recorded | None]]:
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with open(file, 'rb') as stream:
        records = StreamReader(stream).records
        while True:
            try:
                record = next(records, None)
            except Exception:  # where it breaks off
                return
            if record is None:
                return
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                channels[record.id] = record.topic, schemas.get(record.schema_id, '')
                yield channels[record.id], None
            elif isinstance(record, Message) and record.channel_id in channels:
                topic = channels[record.channel_id]
                yield topic, Recorded(topic[0], record.log_time, record.data)


def _salvaged_sqlite(file: Path) -> Iterator[tuple[tuple[str, str], Recorded | None]]:
    try:
        with closing(sqlite3.connect(f'{file.absolute().as_uri()}?mode=ro', uri=True)) as database:
            topics = {
                number: (str(name), str(kind))
                for number, name, kind in database.execute('SELECT id, name, type FROM topics')
            }
            yield from ((topic, None) for topic in topics.values())
            rows = database.execute(
                'SELECT topic_id, timestamp, data FROM messages ORDER BY rowid'
            )
            for number, time, data in rows:
                if number in topics and isinstance(data, bytes) and isinstance(time, int):
                    yield topics[number], Recorded(topics[number][0], time, data)
    except (sqlite3.Error, OverflowError):  # where it breaks off
        return


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200] or type(error).__name__
