""".db3 files read row by row, as far as they go."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw

from .cut import Broken, Topic

HEADER_BYTES = 100


class CutSqlite:
    """A .db3 file that rosbags does not take, for one because its end is missing."""

    def __init__(self, path: Path):
        """Goes through the file once, for what there is in it."""
        self.path = path
        self._numbers: dict[Topic, list[int]] = {}
        counts: Counter[int] = Counter()
        try:
            for number, name, kind in self._rows('SELECT id, name, type FROM topics'):
                self._numbers.setdefault(Topic(str(name), str(kind)), []).append(number)
            for (number,) in self._rows('SELECT topic_id FROM messages'):
                counts[number] += 1
        except Broken:
            pass
        self.topics = {
            topic: sum(counts[number] for number in numbers)
            for topic, numbers in self._numbers.items()
        }

    def messages(self, topic: Topic) -> Iterator[tuple[int, bytes]]:
        """When each message of a topic was recorded [ns], and its bytes; Broken at the cut."""
        # In the order of recording. That of the stamps needs their index, which may be lost.
        numbers = self._numbers.get(topic, [])
        marks = ', '.join('?' * len(numbers))
        query = f'SELECT timestamp, data FROM messages WHERE topic_id IN ({marks}) ORDER BY id'
        yield from self._rows(query, *numbers)

    def _rows(self, query: str, *values: int) -> Iterator[tuple]:
        try:
            uri = f'{self.path.absolute().as_uri()}?immutable=1'
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            with closing(apsw.Connection(uri, flags, WHOLE_PAGES.name)) as database:
                # Without this SQLite opens no file that is shorter than it says.
                database.execute('PRAGMA writable_schema=ON')
                yield from database.execute(query, values)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise Broken(missing(self.path) or str(error)) from None


def missing(path: Path) -> str:
    """How much of a database is missing by its header; '' if nothing is."""
    with open(path, 'rb') as file:
        size, page, pages = _sizes(file.read(HEADER_BYTES), path.stat().st_size)
    return '' if size >= page * pages else f'it has {size} of its {page * pages} bytes'


def _sizes(header: bytes, size: int) -> tuple[int, int, int]:
    """Bytes there are, bytes of a page, and pages there should be."""
    if len(header) < HEADER_BYTES:
        return size, HEADER_BYTES, 1
    (page,) = struct.unpack_from('>H', header, 16)
    (pages,) = struct.unpack_from('>I', header, 28)
    return size, 65536 if page == 1 else max(page, 1), pages


class _WholePages(apsw.VFS):
    """Files without the part of a page at their end: SQLite would fill that up with zeros."""

    name = 'infinitevl_whole_pages'

    def __init__(self):
        super().__init__(self.name, '')

    def xOpen(self, name, flags):  # noqa: N802
        return _File('', name, flags)


class _File(apsw.VFSFile):
    def xFileSize(self):  # noqa: N802
        size = super().xFileSize()
        header = super().xRead(min(size, HEADER_BYTES), 0)
        size, page, _ = _sizes(header, size)
        return size - size % page


WHOLE_PAGES = _WholePages()
