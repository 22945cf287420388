"""The robot around a launched node: its cameras, and who asks."""

import time
from array import array

import cv2
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import CompressedImage, Image

from infinitevl_ros.srv import Query

PATIENCE = 60.0  # seconds for a node to come up


class Robot:
    def __init__(self):
        rclpy.init()
        self._node = rclpy.create_node('robot')
        self._publishers, self._clients = {}, {}
        self._stamp = 0

    def close(self):
        self._node.destroy_node()
        rclpy.shutdown()

    def show(self, topic):
        """One picture, a second after the one before, as the topic's name says: raw or JPEG."""
        kind = CompressedImage if topic.endswith('/compressed') else Image
        if topic not in self._publishers:
            self._publishers[topic] = self._node.create_publisher(kind, topic, 1)
        self._stamp += 1
        pixels = np.full((28, 28), 9 * self._stamp % 256, np.uint8)
        if kind is Image:
            message = Image(height=28, width=28, encoding='mono8', step=28)
            message.data = array('B', pixels.tobytes())
        else:
            message = CompressedImage(format='jpeg')
            message.data = array('B', cv2.imencode('.jpg', pixels)[1].tobytes())
        message.header.stamp.sec = self._stamp
        self._publishers[topic].publish(message)

    def call(self, kind, service, **request):
        """A service's response, once the service is there.

        Asks more than once if need be: a request is now and then lost while DDS is still
        introducing two processes to each other.
        """
        if service not in self._clients:
            self._clients[service] = self._node.create_client(kind, service)
        client = self._clients[service]
        assert client.wait_for_service(PATIENCE), f'{service} did not come up'
        deadline = time.monotonic() + PATIENCE
        while True:
            future = client.call_async(kind.Request(**request))
            rclpy.spin_until_future_complete(self._node, future, timeout_sec=5)
            if future.done():
                return future.result()
            assert time.monotonic() < deadline, f'{service} did not answer'

    def ask(self, node, camera=''):
        return self.call(Query, f'{node}/query', question='What do you see?', camera=camera)

    def first_answer(self, node, camera='', topic=''):
        """The answer when there is one; with a topic, about what is shown there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if topic:
                self.show(topic)
            response = self.ask(node, camera)
            if response.success:
                return response
            assert time.monotonic() < deadline, response.message
            time.sleep(0.05)


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()
