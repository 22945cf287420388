"""Questions from outside: the ~/query service and the ~/ask action."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.qos import QoSProfile

from infinitevl_ros.action import Ask
from infinitevl_ros.srv import Query

from ..engine import Outcome, QueueFullError, Sampling, Ticket
from . import stamps
from .awaiting import awaitable

if TYPE_CHECKING:
    from .node import InfiniteVLNode


class Questions:
    """Serves ~/query and ~/ask from the cameras' memories. Callbacks await; nothing waits.

    `open` counts the requests that have no reply yet.
    """

    def __init__(self, node: InfiniteVLNode):
        self._node, self._value = node, node.value
        self._tickets: dict[bytes, Ticket] = {}
        self.open = 0
        # Deep enough that a burst is told to be too much instead of being lost.
        burst = QoSProfile(depth=1000)
        node.create_service(
            Query, '~/query', self._on_query, qos_profile=burst, callback_group=node.awaiting
        )
        self._server = ActionServer(
            node,
            Ask,
            '~/ask',
            self._on_ask,
            cancel_callback=self._on_cancel,
            callback_group=node.awaiting,
        )

    def close(self) -> None:
        self._server.destroy()

    async def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        sampling = Sampling(max_tokens=self._value('max_tokens'))
        outcome = await self._answered(request, sampling, self._value('query_timeout'))
        return _fill(response, outcome)

    async def _on_ask(self, goal: ServerGoalHandle) -> Ask.Result:
        request, key = goal.request, bytes(goal.goal_id.uuid)

        def started(ticket: Ticket) -> None:
            self._tickets[key] = ticket
            if goal.is_cancel_requested:  # it may have come before the ticket was there
                ticket.cancel()

        try:
            if not 0 <= request.timeout < float('inf'):
                raise ValueError(f'timeout is {request.timeout}, expected seconds, or 0')
            sampling = Sampling(
                request.max_tokens or self._value('max_tokens'),
                request.temperature,
                seed=request.seed if request.seed >= 0 else None,
                json_schema=request.json_schema,
            )
        except ValueError as error:
            outcome = Outcome(False, message=str(error))
        else:
            outcome = await self._answered(
                request,
                sampling,
                request.timeout or self._value('query_timeout'),
                started,
                lambda text: goal.publish_feedback(Ask.Feedback(text=text)),
            )
        self._tickets.pop(key, None)
        if outcome.success:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return _fill(Ask.Result(), outcome)

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        ticket = self._tickets.get(bytes(goal.goal_id.uuid))
        if ticket is not None:
            ticket.cancel()
        return CancelResponse.ACCEPT

    async def _answered(
        self,
        request: Query.Request | Ask.Goal,
        sampling: Sampling,
        timeout: float,
        on_ticket: Callable[[Ticket], None] = lambda ticket: None,
        on_piece: Callable[[str], None] | None = None,
    ) -> Outcome:
        self.open += 1
        try:
            return await self._outcome(request, sampling, timeout, on_ticket, on_piece)
        finally:
            self.open -= 1

    async def _outcome(
        self,
        request: Query.Request | Ask.Goal,
        sampling: Sampling,
        timeout: float,
        on_ticket: Callable[[Ticket], None],
        on_piece: Callable[[str], None] | None,
    ) -> Outcome:
        future, done = awaitable(self._node)
        try:
            if not request.question.strip():
                raise ValueError('the question is empty')
            seen = self._node.seen_by(request.camera)
            ticket = self._node.scheduler.ask(
                seen.memory, request.question, done, on_piece, sampling, timeout, request.client
            )
            on_ticket(ticket)
        except QueueFullError as error:
            return Outcome(False, message=f'busy: {error}')
        except ValueError as error:
            return Outcome(False, message=str(error))
        return await future


def _fill(response: Query.Response | Ask.Result, outcome: Outcome) -> Query.Response | Ask.Result:
    """The fields that both kinds of reply have."""
    response.success = outcome.success
    response.answer = outcome.text
    response.message = outcome.message
    response.first_stamp = stamps.message(outcome.first_stamp)
    response.last_stamp = stamps.message(outcome.newest_stamp)
    response.frames_seen = outcome.frames
    response.tokens = outcome.tokens
    response.seconds = outcome.seconds
    return response
