"""Captions: questions that the node asks itself, by the stamps of the frames."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from infinitevl_ros.msg import Caption

from ..engine import Outcome, QueueFullError, Sampling, Scheduler, Ticket, VisualMemory
from . import stamps
from .parameters import Values


class Captions:
    """Publishes a camera's captions every `caption_period` seconds of stream time.

    `on_frame` and what follows from it run on the engine's thread. `text` is the newest caption's.
    """

    def __init__(self, node: Node, value: Values, camera: str, prefix: str):
        self._log, self._value, self._camera = node.get_logger(), value, camera
        # Late joiners get the newest caption.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(Caption, f'{prefix}captions', latched)
        self._schedule = stamps.Schedule()
        self._pending: Ticket | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew with the next frame; a caption under way is about what is forgotten."""
        if self._pending is not None:
            self._pending.cancel()
        self._pending = None
        self._schedule.reset()
        self._since: int | None = None  # stamp of the newest frame in the caption before
        self.text = ''

    def on_frame(self, scheduler: Scheduler, memory: VisualMemory, frame_id: str) -> None:
        """Begin a caption if one is due with the frame that `memory` just took."""
        newest = memory.newest_stamp
        if self._since is None or newest < self._since:
            self._since = newest
        period = int(self._value('caption_period') * stamps.NANOSECONDS)
        if not self._schedule.due(newest, period):
            return
        first, self._since = self._since, newest
        try:
            ticket = scheduler.caption(
                memory,
                self._value('caption_prompt'),
                lambda outcome: self._publish(ticket, outcome, first, frame_id),
                Sampling(max_tokens=self._value('max_tokens')),
                self._value('query_timeout'),
            )
            self._pending = ticket
        except (QueueFullError, ValueError) as error:
            self._log.warning(f'no caption at {newest / stamps.NANOSECONDS:.3f} s: {error}')

    def _publish(self, ticket: Ticket, outcome: Outcome, first: int, frame_id: str) -> None:
        if ticket is not self._pending:
            return
        self._pending = None
        if not outcome.success:
            self._log.warning(f'no caption: {outcome.message}')
            return
        same, self.text = outcome.text == self.text, outcome.text
        if same and self._value('caption_changes_only'):
            return
        caption = Caption(
            camera=self._camera,
            text=outcome.text,
            first_stamp=stamps.message(first),
            last_stamp=stamps.message(outcome.newest_stamp),
            frames_seen=outcome.frames,
            seconds=outcome.seconds,
        )
        caption.header.stamp = caption.last_stamp
        caption.header.frame_id = frame_id
        self._publisher.publish(caption)
