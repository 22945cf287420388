"""An image subscription that matches the camera's reliability and says what does not match."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from ..media.images import from_compressed, from_image

# What is subscribed to, and how it becomes RGB.
TRANSPORTS: dict[str, tuple[type, Callable[..., np.ndarray]]] = {
    'raw': (Image, from_image),
    'compressed': (CompressedImage, from_compressed),
}

RELIABILITY = {
    'auto': ReliabilityPolicy.BEST_AVAILABLE,
    'reliable': ReliabilityPolicy.RELIABLE,
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
}
UNKNOWN, SOMEONE = '_NODE_NAME_UNKNOWN_', 'a publisher'


class ImageSubscription:
    """Subscribes to a topic of images, depth 1; hands each message to `on_message`.

    With reliability `auto` it takes what the publishers offer when it starts. A publisher that
    comes later and offers less is reported by DDS as incompatible; the subscription is then made
    again as best effort, which matches every publisher. (Best effort from the start would lose
    most large images over the default shared-memory transport.) The parameters
    `qos_overrides.TOPIC.subscription.*` come before all this.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        transport: str,
        reliability: str,
        on_message: Callable[..., None],
    ):
        """`topic` is absolute, of the transport `raw`."""
        self._node = node
        self._type, _ = TRANSPORTS[transport]
        self.topic = topic_of(topic, transport)
        self._asked = reliability
        self._on_message = on_message
        self._retry = None
        self._warned = ''
        self._qos = QoSProfile(
            depth=1, history=HistoryPolicy.KEEP_LAST, reliability=RELIABILITY[reliability]
        )
        self._subscribe(QoSOverridingOptions.with_default_policies())

    @property
    def reliability(self) -> str:
        """What it is subscribed with: auto until a publisher asks for less."""
        found = (name for name, policy in RELIABILITY.items() if policy == self._qos.reliability)
        return next(found, self._qos.reliability.name.lower())

    @property
    def publishers(self) -> int:
        return self._node.count_publishers(self.topic)

    @property
    def mismatch(self) -> str:
        """Which publisher sends what cannot be received, with both settings; '' if none does."""
        wanted = f'sensor_msgs/msg/{self._type.__name__}'
        for publisher in self._node.get_publishers_info_by_topic(self.topic):
            name = f'{publisher.node_namespace.rstrip("/")}/{publisher.node_name}'
            if UNKNOWN in name:  # just discovered, its node's name is still to come
                name = SOMEONE
            if publisher.topic_type != wanted:
                return (
                    f'{self.topic}: {name} publishes {publisher.topic_type}, subscribed is '
                    f'{wanted}; see the parameters topic and transport'
                )
            offered = publisher.qos_profile.reliability
            if (self._qos.reliability, offered) == (
                ReliabilityPolicy.RELIABLE,
                ReliabilityPolicy.BEST_EFFORT,
            ):
                return (
                    f'{self.topic}: {name} offers reliability best_effort, asked for is reliable '
                    f'({self._source}); no image of it will arrive'
                )
        return ''

    def warn(self, mismatch: str) -> None:
        """Log a mismatch, once while it lasts; DDS reports none of another type."""
        _, someone, fault = self._warned.partition(SOMEONE)
        only_named = someone and mismatch.endswith(fault)  # told of before its name had come
        if mismatch != self._warned and not only_named:
            self._node.get_logger().warning(mismatch)
        self._warned = mismatch

    def destroy(self) -> None:
        if self._retry is not None:
            self._node.destroy_timer(self._retry)
        self._node.destroy_subscription(self._subscription)

    @property
    def _source(self) -> str:
        if RELIABILITY[self._asked] != self._qos.reliability:
            return f'qos_overrides.{self.topic}.subscription.reliability'
        return f'image_reliability: {self._asked}'

    def _subscribe(self, overrides: QoSOverridingOptions | None) -> None:
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        try:
            # Writes the overrides into the profile.
            self._subscription = self._node.create_subscription(
                self._type,
                self.topic,
                self._on_message,
                self._qos,
                event_callbacks=events,
                qos_overriding_options=overrides,
            )
        except RuntimeError as error:  # also rcl's
            raise ValueError(
                f'cannot subscribe to {self.topic}: {str(error).splitlines()[0]}; see the '
                f'parameters qos_overrides.{self.topic}.subscription.*'
            ) from None

    def _on_incompatible(self, event: object) -> None:
        log = self._node.get_logger()
        if self._qos.reliability != ReliabilityPolicy.BEST_AVAILABLE:
            self.warn(
                self.mismatch
                or f'{self.topic}: a publisher offers a QoS that does not match reliability '
                f'{self.reliability} ({self._source}); no image of it will arrive'
            )
        elif self._retry is None:
            log.info(f'{self.topic}: the camera is best effort, subscribing as best effort')
            # A subscription must not be destroyed in its own callback.
            self._retry = self._node.create_timer(
                0.0, self._resubscribe, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    def _resubscribe(self) -> None:
        self._node.destroy_timer(self._retry)
        self._retry = None
        self._node.destroy_subscription(self._subscription)
        self._qos.reliability = ReliabilityPolicy.BEST_EFFORT
        # The overrides are in the profile already, and would undo this.
        self._subscribe(None)


def topic_of(topic: str, transport: str) -> str:
    """Where a transport's images are: so remapping the topic moves the compressed one along."""
    return topic if transport == 'raw' else f'{topic}/compressed'
