"""Captions: questions that the node asks itself, by the stamps of the frames."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from infinitevl_ros.msg import Caption

from ..engine import Outcome, QueueFullError, Sampling, Scheduler, Ticket, VisualMemory
from . import stamps


class Captions:
    """Publishes ~/captions every `caption_period` seconds of stream time.

    `on_frame` and what follows from it run on the engine's thread.
    """

    def __init__(self, node: Node, value: Callable[[str], object]):
        """`value` reads a parameter."""
        self._log, self._value = node.get_logger(), value
        # Late joiners get the newest caption.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(Caption, '~/captions', latched)
        self._pending: Ticket | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew with the next frame; a caption under way is about what is forgotten."""
        if self._pending is not None:
            self._pending.cancel()
        self._pending = None
        self._last: int | None = None  # stamp of the newest frame in the caption before

    def on_frame(self, scheduler: Scheduler, memory: VisualMemory, frame_id: str) -> None:
        """Ask for a caption if one is due after the frame that `memory` just took."""
        period = int(self._value('caption_period') * stamps.NANOSECONDS)
        if self._last is None:
            self._last = memory.first_stamp
        elapsed = memory.newest_stamp - self._last
        # Stamps that jump back (a bag that loops) are a new stretch of time.
        due = elapsed >= period or elapsed < 0
        if not period or not due or self._pending is not None:
            return
        first, self._last = self._last, memory.newest_stamp
        if elapsed < 0:
            first = memory.newest_stamp
        try:
            ticket = scheduler.caption(
                memory,
                self._value('caption_prompt'),
                lambda outcome: self._publish(ticket, outcome, first, frame_id),
                Sampling(max_tokens=self._value('max_tokens')),
                self._value('query_timeout'),
            )
            self._pending = ticket
        except QueueFullError as error:
            self._log.warning(f'no caption: {error}')

    def _publish(self, ticket: Ticket, outcome: Outcome, first: int, frame_id: str) -> None:
        if ticket is not self._pending:
            return
        self._pending = None
        if not outcome.success:
            self._log.warning(f'no caption: {outcome.message}')
            return
        # It may have waited its turn while frames went on.
        self._last = outcome.newest_stamp
        caption = Caption(
            text=outcome.text,
            first_stamp=stamps.message(first),
            last_stamp=stamps.message(outcome.newest_stamp),
            frames_seen=outcome.frames,
            seconds=outcome.seconds,
        )
        caption.header.stamp = caption.last_stamp
        caption.header.frame_id = frame_id
        self._publisher.publish(caption)
