"""The images of a topic of a bag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rosbags.typesys import Stores, get_typestore

from .bag_storage import Bag, Topic
from .images import ImageError, from_compressed, from_image
from .source import Shot, Source, SourceError

NANOSECONDS = 1_000_000_000
DECODERS = {
    'sensor_msgs/msg/Image': from_image,
    'sensor_msgs/msg/CompressedImage': from_compressed,
}
NAMELESS_TYPE = 'a type that is not told'


class BagSource(Source):
    """One topic of images of a bag; stamps are the headers', where they have none the recording's.

    Messages that hold no picture are left out, with a warning for each reason.
    """

    kind = 'bag'

    def __init__(self, path: Path, topic: str = ''):
        super().__init__(path)
        if path.suffix == '.bag':
            raise SourceError(f'{path}: a ROS 1 bag; rosbags-convert makes a ROS 2 bag of it')
        try:
            self._bag = Bag(path)
        except OSError as error:
            raise SourceError(f'{path}: {error}') from None
        self._topic = self._chosen(topic)
        self.topic = self._topic.name
        self.expected = None if self._bag.damage else self._topic.messages

    def _chosen(self, name: str) -> Topic:
        """The topic that was asked for, or the only one that has images."""
        bag = self._bag
        images = [topic for topic in bag.topics if topic.type in DECODERS]
        if name:
            found = [topic for topic in bag.topics if topic.name == name]
            if not found:
                raise SourceError(f'{self.path}: no topic {name}; it has {_listed(bag.topics)}')
            if found[0].type not in DECODERS:
                raise SourceError(
                    f'{self.path}: {name} has messages of {found[0].type or NAMELESS_TYPE}, '
                    f'expected {" or ".join(DECODERS)}'
                )
            return found[0]
        if not images:
            damage = f' that can be read: {bag.damage}' if bag.damage else ''
            raise SourceError(
                f'{self.path}: a bag without images{damage}; it has {_listed(bag.topics)}'
            )
        if len(images) > 1:
            raise SourceError(
                f'{self.path}: {len(images)} topics have images, name one: {_listed(images)}'
            )
        return images[0]

    def _shots(self) -> Iterator[Shot]:
        store = get_typestore(Stores.ROS2_JAZZY)
        decode = DECODERS[self._topic.type]
        left_out: Counter[str] = Counter()
        shots = 0
        for recorded in self._bag.messages([self.topic]):
            try:
                message = store.deserialize_cdr(recorded.data, self._topic.type)
                pixels = decode(message)
            except ImageError as error:
                left_out[str(error)] += 1
                continue
            except Exception as error:  # on damaged bytes it can fail in any way
                left_out[f'not a message of {self._topic.type} ({type(error).__name__})'] += 1
                continue
            stamp = message.header.stamp
            yield Shot(stamp.sec * NANOSECONDS + stamp.nanosec or recorded.time, pixels)
            shots += 1
        for reason, count in left_out.items():
            self.warnings.append(f'{self.path}: {count} messages left out: {reason}')
        if self._bag.damage:
            self.warnings.append(
                f'{self.path}: damaged: {self._bag.damage}; {shots} images could be read'
            )


def _listed(topics: list[Topic]) -> str:
    texts = [
        f'{topic.name} ({topic.type or NAMELESS_TYPE}, {topic.messages} messages)'
        for topic in topics
    ]
    return ', '.join(texts) or 'no topics'
