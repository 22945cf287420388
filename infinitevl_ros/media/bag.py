"""The images of a topic of a bag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rosbags.typesys import Stores, get_typestore

from .bag_storage import Bag, one_line, uncompressed
from .cut import Broken, Topic
from .images import ImageError, from_compressed, from_image
from .source import Shot, Source, SourceError

NANOSECONDS = 1_000_000_000
DECODERS = {
    'sensor_msgs/msg/Image': from_image,
    'sensor_msgs/msg/CompressedImage': from_compressed,
}


class BagSource(Source):
    """One topic of images of a bag; stamps are the headers', where they have none the recording's.

    Messages that hold no picture are left out, with a warning for each reason.
    """

    kind = 'bag'
    _part = 'message'

    def __init__(self, path: Path, topic: str = ''):
        super().__init__(path)
        try:
            self._bag = Bag(path)
        except OSError as error:
            raise SourceError(f'{path}: {error.strerror or error}') from None
        self._topic = self._chosen(topic)
        self.topic = self._topic.name
        self.expected = self._bag.expected(self._topic)

    def _chosen(self, name: str) -> Topic:
        """The topic that was asked for, or the only one that has images."""
        topics = self._bag.topics
        images = [topic for topic in topics if topic.type in DECODERS]
        if name:
            found = [topic for topic in topics if topic.name in (name, f'/{name}')]
            usable = [topic for topic in found if topic.type in DECODERS]
            if usable:
                return self._filled(usable[0])
            if found:
                raise SourceError(
                    f'{self.path}: {found[0].name} has messages of {found[0].type}, expected '
                    f'{" or ".join(DECODERS)}'
                )
            raise SourceError(f'{self.path}: no topic {name}; it has {self._listed(topics)}')
        if len(images) == 1:
            return self._filled(images[0])
        if images:
            raise SourceError(
                f'{self.path}: {len(images)} topics have images, name one (--topic): '
                f'{self._listed(images)}'
            )
        damage = self._damage()
        raise SourceError(
            f'{self.path}: a bag without images'
            f'{f" that can be read ({damage})" if damage else ""}; it has {self._listed(topics)}'
        )

    def _filled(self, topic: Topic) -> Topic:
        """The topic, if the bag does not say that it is empty."""
        if self._bag.expected(topic) == 0:
            raise SourceError(
                f'{self.path}: no message on {topic.name}; it has {self._listed(self._bag.topics)}'
            )
        return topic

    def _damage(self) -> str:
        """What shows on the way through the bag, '' if nothing does."""
        for topic in self._bag.topics or [Topic('', '')]:
            try:
                for _ in self._bag.messages(topic):
                    pass
            except Broken as broken:
                return str(broken)
        return ''

    def _listed(self, topics: list[Topic] | dict[Topic, int]) -> str:
        counts = self._bag.topics
        texts = (
            f'{topic.name} ({topic.type}, {counts[topic]} '
            f'message{"" if counts[topic] == 1 else "s"})'
            for topic in topics
        )
        return ', '.join(texts) or 'no topics'

    def _shots(self) -> Iterator[Shot]:
        store = get_typestore(Stores.ROS1_NOETIC if self._bag.is_ros1 else Stores.ROS2_JAZZY)
        read = store.deserialize_ros1 if self._bag.is_ros1 else store.deserialize_cdr
        decode = DECODERS[self._topic.type]
        given = 0
        try:
            for time, data in self._bag.messages(self._topic):
                try:
                    message = read(uncompressed(data), self._topic.type)
                    pixels = np.ascontiguousarray(decode(message))
                except ImageError as error:
                    self._leave_out(str(error))
                    continue
                except Exception as error:  # on damaged bytes it can fail in any way
                    self._leave_out(f'not a {self._topic.type}: {one_line(error)}')
                    continue
                stamp = message.header.stamp
                yield Shot(stamp.sec * NANOSECONDS + stamp.nanosec or time, pixels)
                given += 1
        except Broken as broken:
            of = f' of {self.expected}' if self.expected else ''
            self.warnings.append(
                f'{self.path}: damaged, {given}{of} images could be read: {broken}'
            )
