"""An image subscription that matches the camera's reliability by itself."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from .images import TRANSPORTS

RELIABILITY = {
    'auto': ReliabilityPolicy.BEST_AVAILABLE,
    'reliable': ReliabilityPolicy.RELIABLE,
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
}


class ImageSubscription:
    """Subscribes to `image` or `image/compressed`, depth 1; hands each message to `on_message`.

    With reliability `auto` it takes what the publishers offer when it starts. A publisher that
    comes later and offers less is reported by DDS as incompatible; the subscription is then made
    again as best effort, which matches every publisher. (Best effort from the start would lose
    most large images over the default shared-memory transport.)
    """

    def __init__(
        self, node: Node, transport: str, reliability: str, on_message: Callable[..., None]
    ):
        self._node = node
        self._type, _ = TRANSPORTS[transport]
        # Resolved first, so that remapping `image` moves the compressed topic along with it.
        topic = node.resolve_topic_name('image')
        self.topic = topic if transport == 'raw' else f'{topic}/compressed'
        self._auto = reliability == 'auto'
        self._on_message = on_message
        self._retry = None
        self.reliability = reliability
        self._subscribe(RELIABILITY[reliability])

    @property
    def publishers(self) -> int:
        return self._node.count_publishers(self.topic)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        qos = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=reliability)
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        self._subscription = self._node.create_subscription(
            self._type, self.topic, self._on_message, qos, event_callbacks=events
        )

    def _on_incompatible(self, event: object) -> None:
        log = self._node.get_logger()
        if not self._auto:
            log.warning(
                f'{self.topic}: a publisher offers a QoS that does not match image_reliability '
                f'"{self.reliability}"; no image of it will arrive. Set image_reliability to auto.'
            )
        elif self._retry is None and self.reliability == 'auto':
            log.info(f'{self.topic}: the camera is best effort, subscribing as best effort')
            # A subscription must not be destroyed in its own callback.
            self._retry = self._node.create_timer(
                0.0, self._resubscribe, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    def _resubscribe(self) -> None:
        self._node.destroy_timer(self._retry)
        self._node.destroy_subscription(self._subscription)
        self.reliability = 'best_effort'
        self._subscribe(ReliabilityPolicy.BEST_EFFORT)
