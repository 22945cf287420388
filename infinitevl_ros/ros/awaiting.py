"""How callbacks wait for other threads without keeping the executor."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.task import Future


def awaitable(node: Node) -> tuple[Future, Callable[[object], None]]:
    """A future to await in a callback, and a function by which another thread completes it."""
    future = Future()

    def done(result: object) -> None:
        future.set_result(result)
        # Without this an idle executor may sleep on for seconds (rclpy issue 1462).
        if node.executor is not None:
            node.executor.wake()

    return future, done
