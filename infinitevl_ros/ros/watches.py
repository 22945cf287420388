"""Standing questions: the ~/watch action, conditions in words that are checked as frames come."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle

from infinitevl_ros.action import Watch

from ..engine import Outcome, QueueFullError, Sampling, Ticket
from . import stamps
from .awaiting import awaitable

if TYPE_CHECKING:
    from .camera import Camera
    from .node import InfiniteVLNode

# Enough for any way to begin with yes or no; what follows is not looked at.
SAMPLING = Sampling(max_tokens=8)
VERDICT = re.compile(r'\W*(yes|no)\b', re.IGNORECASE)
SHORTEST, LONGEST = 0.001, 1e9  # periods and durations [s]


class Standing:
    """One condition of one camera; all but `end` and `cancelled` run on the engine's thread."""

    def __init__(self, node: InfiniteVLNode, goal: ServerGoalHandle, camera: Camera):
        self._node, self._goal, self.camera = node, goal, camera
        request = goal.request
        self._period = int(request.period * stamps.NANOSECONDS)
        self._duration = int(request.duration * stamps.NANOSECONDS)
        self._needed = max(1, request.debounce)
        self._schedule = stamps.Schedule(at_once=True)
        self._began: int | None = None  # stream time: it goes on when stamps jump
        self._pending: Ticket | None = None
        self._holds: bool | None = None
        self._said: bool | None = None  # by the newest check, and how many in a row say so
        self._agreeing = 0
        self.checks = self.changes = 0
        self.ended, self._end = awaitable(node)
        self._ending = threading.Lock()

    def on_frame(self) -> None:
        """Check if it is due with the frame that the camera's memory just took."""
        memory = self.camera.memory
        if self._began is None or memory.elapsed < self._began:  # forgotten meanwhile
            self._began = memory.elapsed
        if self._duration and memory.elapsed - self._began >= self._duration:
            self.end(True, 'its duration is over')
        elif self._pending is None and self._schedule.due(memory.newest_stamp, self._period):
            try:
                self._pending = self._node.scheduler.check(
                    memory,
                    self._goal.request.condition,
                    self._on_checked,
                    SAMPLING,
                    self._node.value('query_timeout'),
                )
            except QueueFullError as error:
                self._node.get_logger().warning(f'a check was left out: {error}')

    def end(self, success: bool, message: str) -> None:
        """End it, from any thread; the first one's word counts."""
        with self._ending:
            if self.ended.done():
                return
            self._end((success, message))
        if (pending := self._pending) is not None:
            pending.cancel()

    def result(self, message: str, success: bool) -> Watch.Result:
        return Watch.Result(
            success=success,
            message=message,
            holds=bool(self._holds),
            checks=self.checks,
            changes=self.changes,
        )

    def _on_checked(self, outcome: Outcome) -> None:
        self._pending = None
        if self.ended.done():
            return
        verdict = VERDICT.match(outcome.text)
        if not outcome.success or verdict is None:
            self._node.get_logger().warning(
                f'"{self._goal.request.condition}" was not answered by yes or no: '
                f'"{outcome.text}" {outcome.message}',
                throttle_duration_sec=10.0,
            )
            return
        self.checks += 1
        holds = verdict[1].lower() == 'yes'
        self._agreeing = self._agreeing + 1 if holds == self._said else 1
        self._said = holds
        if holds == self._holds or self._agreeing < self._needed:
            return
        self._holds = holds
        self.changes += 1
        self._goal.publish_feedback(
            Watch.Feedback(
                holds=holds,
                answer=outcome.text,
                stamp=stamps.message(outcome.newest_stamp),
                checks=self.checks,
            )
        )
        if holds and self._goal.request.once:
            self.end(True, 'it holds')


class Watches:
    """Serves ~/watch."""

    def __init__(self, node: InfiniteVLNode):
        self._node = node
        self._standing: dict[bytes, Standing] = {}
        self._server = ActionServer(
            node,
            Watch,
            '~/watch',
            self._on_watch,
            cancel_callback=self._on_cancel,
            callback_group=node.awaiting,
        )

    def __len__(self) -> int:
        return len(self._standing)

    def close(self) -> None:
        self._server.destroy()

    def end_all(self, message: str) -> None:
        for standing in list(self._standing.values()):
            standing.end(False, message)

    def on_frame(self, camera: Camera) -> None:
        """On the engine's thread, after a frame was taken."""
        for standing in list(self._standing.values()):
            if standing.camera is camera:
                standing.on_frame()

    async def _on_watch(self, goal: ServerGoalHandle) -> Watch.Result:
        key = bytes(goal.goal_id.uuid)
        try:
            standing = self._checked(goal)
        except ValueError as error:
            goal.abort()
            return Watch.Result(message=str(error))
        self._standing[key] = standing
        if goal.is_cancel_requested:  # it may have come before this was there
            standing.end(False, 'cancelled')
        success, message = await standing.ended
        del self._standing[key]
        if goal.is_cancel_requested:
            goal.canceled()
        elif success:
            goal.succeed()
        else:
            goal.abort()
        return standing.result(message, success)

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        standing = self._standing.get(bytes(goal.goal_id.uuid))
        if standing is not None:
            standing.end(False, 'cancelled')
        return CancelResponse.ACCEPT

    def _checked(self, goal: ServerGoalHandle) -> Standing:
        """The goal as a standing question; ValueError with the reason why not."""
        request, most = goal.request, self._node.value('max_watches')
        if not request.condition.strip():
            raise ValueError('the condition is empty')
        for name in ('period', 'duration'):
            value = getattr(request, name)
            if not 0 <= value <= LONGEST:
                raise ValueError(f'{name} is {value}, expected seconds of stream time')
        if request.period < SHORTEST:
            raise ValueError(
                f'period is {request.period}, expected the seconds of stream time between checks, '
                f'at least {SHORTEST}'
            )
        if len(self._standing) >= most:
            raise ValueError(f'busy: {most} watches are standing already (max_watches)')
        self._node.check_active()
        return Standing(self._node, goal, self._node.camera(request.camera))
