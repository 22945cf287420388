"""Transitions of a managed node on a thread of their own, so that none keeps the executor."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from .awaiting import awaitable

RCLError = rclpy_implementation.RCLError
TRANSITIONS = {
    Transition.TRANSITION_CONFIGURE: 'configure',
    Transition.TRANSITION_CLEANUP: 'cleanup',
    Transition.TRANSITION_ACTIVATE: 'activate',
    Transition.TRANSITION_DEACTIVATE: 'deactivate',
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: 'shutdown',
    Transition.TRANSITION_INACTIVE_SHUTDOWN: 'shutdown',
    Transition.TRANSITION_ACTIVE_SHUTDOWN: 'shutdown',
}

# The new state is told of a moment before the transition to it has quite ended [s].
GRACE = 0.5


def logged(callback: Callable) -> Callable:
    """A transition's callback: what it raises is logged and kept, which rclpy does not do."""

    @functools.wraps(callback)
    def call(self: ManagedNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(self, state) or TransitionCallbackReturn.SUCCESS
        except Exception as error:
            reason = f'{callback.__name__} failed: {error!r}'
            self.get_logger().error(reason)
            self.failure = self.failure or reason
            return TransitionCallbackReturn.ERROR

    return call


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node whose services answer while a transition is under way.

    `awaiting` is for services whose callbacks await: a mutually exclusive group, the default,
    would be held meanwhile. `failure` says why a transition failed.
    """

    failure = ''

    def __init__(self, name: str, **options: object):
        Node.__init__(self, name, **options)
        self.awaiting = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self.awaiting)
        # rclpy's own would run the transition in its callback.
        service = next(s for s in self.services if s.srv_type is ChangeState)
        service.callback = self._on_change_state
        self._changing = threading.Lock()

    @property
    def state(self) -> str:
        """The label of the present state: unconfigured, inactive, active, configuring, ..."""
        return self._state_machine.current_state[1]

    def transition(self, label: str, wait: bool = False) -> bool:
        """Go through a transition on the caller's thread; whether it succeeded.

        One is under way at a time: another is refused, or with `wait` comes after it.
        """
        if not self._changing.acquire(timeout=-1 if wait else GRACE):
            self.get_logger().warning(f'{label} refused: the node is {self.state}')
            return False
        try:
            result = getattr(self, f'trigger_{label}')()
        except RCLError:
            self.get_logger().warning(f'{label} refused: the node is {self.state}')
            return False
        finally:
            self._changing.release()
        self.get_logger().info(f'{label}: the node is {self.state}')
        return result == TransitionCallbackReturn.SUCCESS

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        label = request.transition.label or TRANSITIONS.get(request.transition.id, '')
        if label not in TRANSITIONS.values():
            self.get_logger().warning(f'no transition "{label}" ({request.transition.id})')
            response.success = False
            return response
        future, done = awaitable(self)
        threading.Thread(
            target=lambda: done(self.transition(label)), name=label, daemon=True
        ).start()
        response.success = await future
        return response
