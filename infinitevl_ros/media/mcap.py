"""MCAP files read record by record, as far as they go.

rosbags reads by the index at the end, which a recording that was cut off does not have. Format:
https://mcap.dev/spec
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lz4.frame import LZ4FrameDecompressor
from tqdm import tqdm

from .cut import Broken, Topic

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b'\x89MCAP0\r\n'
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0F
HEAD = struct.Struct('<BQ')  # of a record: its kind, and how many bytes follow


class CutMcap:
    """An .mcap file whose end is missing, or that rosbags does not take for another reason."""

    def __init__(self, path: Path):
        """Goes through the file once, for what there is in it."""
        self.path = path
        counts: Counter[Topic] = Counter()
        with (
            open(path, 'rb') as file,
            # For big files: all of it is read.
            tqdm.wrapattr(
                file,
                'read',
                path.stat().st_size,
                desc=f'looking through {path.name}',
                disable=None,
                delay=2,
                leave=False,
            ) as watched,
        ):
            try:
                for topic, message in self._walk(watched):
                    counts[topic] += message is not None
            except Broken:
                pass
        self.topics = dict(counts)

    def messages(self, topic: Topic) -> Iterator[tuple[int, bytes]]:
        """When each message of a topic was recorded [ns], and its bytes; Broken at the cut."""
        with open(self.path, 'rb') as file:
            for found, message in self._walk(file):
                if found == topic and message:
                    time, data = message
                    yield time, bytes(data)

    def _walk(self, file: BinaryIO) -> Iterator[tuple[Topic, tuple[int, memoryview] | None]]:
        """Topics as they are declared, with None, and their messages."""
        schemas = {0: ''}
        topics: dict[int, Topic] = {}
        try:
            for kind, content in _records(file, self.path.stat().st_size):
                if kind == SCHEMA:
                    (number,) = struct.unpack_from('<H', content)
                    schemas[number], _ = _text(content, 2)
                elif kind == CHANNEL:
                    number, schema = struct.unpack_from('<HH', content)
                    name, _ = _text(content, 4)
                    topics[number] = Topic(name, schemas[schema])
                    yield topics[number], None
                elif kind == MESSAGE:
                    number, _, time = struct.unpack_from('<HIQ', content)
                    yield topics[number], (time, content[22:])
        except (struct.error, UnicodeDecodeError, KeyError):
            raise Broken('a record has not the form that MCAP says') from None


def _records(file: BinaryIO, size: int) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of schemas, channels and messages, those in chunks too, until data end.

    Raises Broken where they stop before it; of a chunk that is cut off its first messages come.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise Broken('it does not begin as an MCAP file does')
    position = len(MAGIC)
    while True:
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            raise Broken(f'it ends at byte {size}, without the index that a whole file has')
        kind, length = HEAD.unpack(head)
        if kind in (DATA_END, FOOTER):
            return
        position += HEAD.size
        # No more than there is: a broken length would take all memory.
        content = memoryview(file.read(min(length, size - position)))
        position += length
        if kind == CHUNK:
            yield from _chunk(content, whole=len(content) == length)
        elif len(content) == length and kind in (SCHEMA, CHANNEL, MESSAGE):
            yield kind, content


def _chunk(content: memoryview, whole: bool) -> Iterator[tuple[int, memoryview]]:
    try:
        _, _, size, checksum = struct.unpack_from('<QQQI', content)
        compression, at = _text(content, 28)
    except struct.error:
        return  # cut off before anything of use
    records = content[at + 8 :]
    try:
        if compression == 'zstd':
            records = memoryview(zstd.ZstdDecompressor().decompress(records))
        elif compression == 'lz4':
            records = memoryview(LZ4FrameDecompressor().decompress(records))
        elif compression:
            raise Broken(f'a chunk has compression "{compression}", expected zstd, lz4 or none')
    except (zstd.ZstdError, RuntimeError, EOFError) as error:
        raise Broken(f'a chunk cannot be decompressed: {error}') from None
    if whole and (len(records) != size or checksum not in (0, zlib.crc32(records))):
        raise Broken('a chunk does not have the size or the checksum that it says')
    position = 0
    while position + HEAD.size <= len(records):
        kind, length = HEAD.unpack_from(records, position)
        position += HEAD.size
        if position + length > len(records):
            return
        yield kind, records[position : position + length]
        position += length


def _text(content: memoryview, at: int) -> tuple[str, int]:
    """A string at a position, and where it ends."""
    (length,) = struct.unpack_from('<I', content, at)
    end = at + 4 + length
    if end > len(content):
        raise struct.error
    return bytes(content[at + 4 : end]).decode(), end
