"""One camera of the node: its topic, its memory, its captions and its overlay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from ..engine import Scheduler, StreamingEngine, VisualMemory
from . import stamps
from .captions import Captions
from .overlay import Overlay
from .subscription import TRANSPORTS, ImageSubscription, topic_of

if TYPE_CHECKING:
    from .node import InfiniteVLNode

WARNING_PERIOD = 5.0  # seconds between warnings about bad frames
# A frame may come this part of rate_limit's period early: stamps jitter.
EARLY = 0.25


class Camera:
    """A camera's images on their way into its memory.

    `memory` is there while the node is configured, `subscription` while it is active. Of frames
    that came, `skipped` counts those that `rate_limit` left out.
    """

    def __init__(self, node: InfiniteVLNode, name: str):
        self._node, self.name = node, name
        self.prefix = f'~/{name}/' if name else '~/'
        self._transport = node.value('transport', name)
        self._decode = TRANSPORTS[self._transport][1]
        self._image = node.resolve_topic_name(node.value('topic', name))
        self.topic = topic_of(self._image, self._transport)
        self.captions = Captions(node, node.value, name, self.prefix)
        self.overlay = Overlay(node, self.prefix, self._decode)
        self.memory: VisualMemory | None = None
        self.subscription: ImageSubscription | None = None
        self._scheduler: Scheduler | None = None
        self._frame_id, self.skipped = '', 0
        self.forget()

    def forget(self) -> None:
        """Begin anew with the next frame, as the memory does."""
        self.captions.reset()
        self._newest: int | None = None
        self._due: int | None = None

    def configure(self, engine: StreamingEngine, scheduler: Scheduler) -> None:
        self.memory, self._scheduler = engine.new_memory(), scheduler
        self.skipped = 0
        self.forget()

    def cleanup(self) -> None:
        self.memory = self._scheduler = None

    def activate(self) -> None:
        reliability = self._node.value('image_reliability', self.name)
        self.subscription = ImageSubscription(
            self._node, self._image, self._transport, reliability, self._on_image
        )

    def deactivate(self) -> None:
        """Stop taking frames; the memory stays."""
        if self.subscription is not None:
            self.subscription.destroy()
        self.subscription = None
        if self._scheduler is not None:
            self._scheduler.drop_waiting(self.memory)

    @property
    def why_no_frame(self) -> str:
        publishers = self.subscription.publishers if self.subscription else 0
        return f'no frame seen yet on {self.topic} ({publishers} publishers)'

    def _on_image(self, message: Image | CompressedImage) -> None:
        header, memory = message.header, self.memory
        if self.subscription is None or memory is None:  # it came while the node was stopping
            return
        stamp = stamps.nanoseconds(header.stamp)
        if not stamp:
            # A camera that does not stamp its images: the time of arrival is the next best.
            stamp = self._node.get_clock().now().nanoseconds
        if not self._is_wanted(stamp):
            self.skipped += 1
            return

        def pixels(new: Callable) -> np.ndarray:
            """On the engine's thread, when the frame's turn has come."""
            self._frame_id = header.frame_id
            return self._decode(message, new)

        self._scheduler.offer(memory, pixels, stamp)
        self.overlay.offer(message, self.captions.text)

    def _is_wanted(self, stamp: int) -> bool:
        """Whether a frame's stamp is due; one that jumped back is told of."""
        if self._newest is not None and stamp < self._newest - stamps.JUMP:
            self._on_jump(self._newest, stamp)
            self._due = None
        if limit := self._node.value('rate_limit', self.name):
            period = round(stamps.NANOSECONDS / limit)
            due = self._due
            if due is None or due > stamp + 2 * period:  # the limit was another
                due = stamp
            if stamp < due - EARLY * period:
                return False
            # From when it was due, so that the rate is kept; after a pause, from now on.
            self._due = (due if stamp < due + period else stamp) + period
        self._newest = stamp
        return True

    def _on_jump(self, before: int, stamp: int) -> None:
        resets = self._node.value('time_jump') == 'reset'
        self._node.get_logger().warning(
            f'{self.topic}: stamps jumped back by {(before - stamp) / stamps.NANOSECONDS:.1f} s; '
            f'{"forgetting everything" if resets else "going on"} (time_jump)'
        )
        if resets:
            # Before the frame that is offered next: calls come first.
            self._scheduler.reset(self.memory, lambda _frames: self.captions.reset())

    def on_frame(self) -> None:
        """On the engine's thread, after a frame was taken."""
        self.captions.on_frame(self._scheduler, self.memory, self._frame_id)

    def on_frame_error(self, error: Exception) -> None:
        """On the engine's thread, after a frame was refused."""
        self._node.get_logger().warning(
            f'{self.topic}: frame refused: {error}', throttle_duration_sec=WARNING_PERIOD
        )
