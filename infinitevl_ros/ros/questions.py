"""Questions from outside: the ~/query service and the ~/ask action."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future

from infinitevl_ros.action import Ask
from infinitevl_ros.srv import Query

from ..engine import Outcome, QueueFullError, Sampling, Scheduler, Ticket, VisualMemory
from . import stamps


def awaitable(node: Node) -> tuple[Future, Callable[[object], None]]:
    """A future to await in a callback, and a function by which another thread completes it."""
    future = Future()

    def done(result: object) -> None:
        future.set_result(result)
        # Without this an idle executor may sleep on for seconds (rclpy issue 1462).
        node.executor.wake()

    return future, done


class Questions:
    """Serves ~/query and ~/ask from one memory. Callbacks await; nothing waits."""

    def __init__(
        self,
        node: Node,
        scheduler: Scheduler,
        memory: VisualMemory,
        value: Callable[[str], object],
        why_no_frame: Callable[[], str],
        group: ReentrantCallbackGroup,
    ):
        """`value` reads a parameter; `group` is reentrant: a coroutine that awaits holds it."""
        self._node, self._scheduler, self._memory = node, scheduler, memory
        self._value, self._why_no_frame = value, why_no_frame
        self._tickets: dict[bytes, Ticket] = {}
        # Deep enough that a burst is told to be too much instead of being lost.
        burst = QoSProfile(depth=1000)
        node.create_service(
            Query, '~/query', self._on_query, qos_profile=burst, callback_group=group
        )
        self._server = ActionServer(
            node,
            Ask,
            '~/ask',
            self._on_ask,
            cancel_callback=self._on_cancel,
            callback_group=group,
        )

    def close(self) -> None:
        self._server.destroy()

    async def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        sampling = Sampling(max_tokens=self._value('max_tokens'))
        return _fill(response, await self._answered(request.question, sampling))

    async def _on_ask(self, goal: ServerGoalHandle) -> Ask.Result:
        request, key = goal.request, bytes(goal.goal_id.uuid)

        def started(ticket: Ticket) -> None:
            self._tickets[key] = ticket
            if goal.is_cancel_requested:  # it may have come before the ticket was there
                ticket.cancel()

        try:
            sampling = Sampling(
                request.max_tokens or self._value('max_tokens'),
                request.temperature,
                seed=request.seed if request.seed >= 0 else None,
            )
        except ValueError as error:
            outcome = Outcome(False, message=str(error))
        else:
            outcome = await self._answered(
                request.question,
                sampling,
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
        question: str,
        sampling: Sampling,
        on_ticket: Callable[[Ticket], None] = lambda ticket: None,
        on_piece: Callable[[str], None] | None = None,
    ) -> Outcome:
        if not question.strip():
            return Outcome(False, message='the question is empty')
        if not self._memory.frames:
            return Outcome(False, message=self._why_no_frame())
        future, done = awaitable(self._node)
        timeout = self._value('query_timeout')
        try:
            on_ticket(
                self._scheduler.ask(self._memory, question, done, on_piece, sampling, timeout)
            )
        except QueueFullError as error:
            return Outcome(False, message=f'busy: {error}')
        return await future


def _fill(response: Query.Response | Ask.Result, outcome: Outcome) -> Query.Response | Ask.Result:
    """The fields that both kinds of reply have."""
    response.success = outcome.success
    response.answer = outcome.text
    response.message = outcome.message
    response.stamp = stamps.message(outcome.newest_stamp)
    response.frames_seen = outcome.frames
    response.tokens = outcome.tokens
    response.seconds = outcome.seconds
    return response
