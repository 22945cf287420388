"""The node, in a process of its own or in this one, and a client that talks to it over DDS."""

import array
import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from infinitevl_ros.action import Ask, Watch
from infinitevl_ros.msg import Caption
from infinitevl_ros.ros import diagnostics
from infinitevl_ros.ros.node import InfiniteVLNode, spin
from infinitevl_ros.srv import LoadMemory, Query, SaveMemory

TIMEOUT = 30.0
SECOND = 1_000_000_000


def node_command(*arguments):
    prefix = Path(get_package_prefix('infinitevl_ros'))
    node = prefix / 'lib' / 'infinitevl_ros' / 'infinitevl_node'
    return [sys.executable, str(node), '--ros-args', *arguments]


class RunningNode:
    """infinitevl_node as a user starts it; `log` collects its output."""

    def __init__(self, *arguments, **parameters):
        assignments = [f'{name}:={value}' for name, value in parameters.items()]
        flags = [word for text in assignments for word in ('-p', text)]
        self.process = subprocess.Popen(
            node_command(*arguments, *flags), stderr=subprocess.PIPE, text=True
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        self.lines += iter(self.process.stderr.readline, '')

    @property
    def log(self):
        return ''.join(self.lines)

    def wait_for_log(self, text):
        until(lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    def stop(self):
        self.process.send_signal(2)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self._reader.join()


class HostedNode:
    """infinitevl_node in this process, with an executor and a context of its own."""

    def __init__(self, namespace='', **parameters):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = InfiniteVLNode(
            context=self.context, namespace=namespace, parameter_overrides=overrides
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self.node.start()

    def _spin(self):
        spin(self.executor, self.node)

    def stop(self):
        self.node.end()
        self.executor.shutdown()
        self._thread.join()
        self.node.close()
        rclpy.try_shutdown(context=self.context)


def counts(node, camera=0):
    """The frames of a camera of a hosted node: at once, where diagnostics come a little later."""
    return node.scheduler.counts(node.cameras[camera].memory)


def until(condition, timeout=TIMEOUT):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


class Client:
    """A robot's other nodes: a camera, and those who ask and listen. Spins in a thread."""

    def __init__(self, image_topic='image', image_type=Image, reliability='reliable', camera=''):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('client', context=self.context)
        self.camera, self.captions = camera, []
        self.statuses, self.engine_statuses = [], []
        # Deep enough that the writer never overwrites what the node has not yet acknowledged.
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy[reliability.upper()])
        self.image_type = image_type
        self.publisher = self.node.create_publisher(image_type, image_topic, qos)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        name = 'infinitevl_node'
        below = f'{name}/{camera}' if camera else name
        self.node.create_subscription(Caption, f'{below}/captions', self.captions.append, latched)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._query = self.node.create_client(Query, f'{name}/query')
        self._ask = ActionClient(self.node, Ask, f'{name}/ask')
        self._watch = ActionClient(self.node, Watch, f'{name}/watch')
        # Made now: a request or its reply may get lost while both sides are finding one another.
        self._clients = {
            service: self.node.create_client(kind, f'{name}/{service}')
            for service, kind in (
                ('change_state', ChangeState),
                ('get_state', GetState),
                ('save_memory', SaveMemory),
                ('load_memory', LoadMemory),
                ('reset', Trigger),
            )
        }
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self.executor.spin, daemon=True)
        self._thread.start()
        self._stamp = 100 * SECOND

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name == f'infinitevl_node: {self.camera or "stream"}':
                self.statuses.append(status)
            elif status.name == 'infinitevl_node: engine':
                self.engine_statuses.append(status)

    def wait_state(self, state):
        assert until(lambda: self.engine_statuses and self.engine_values['state'] == state)

    def wait_ready(self):
        assert self._query.wait_for_service(TIMEOUT)
        self.wait_state('active')
        # Both sides must know of each other, or the first images are lost.
        assert until(lambda: self.publisher.get_subscription_count())
        assert until(lambda: '(0 publishers)' not in self.statuses[-1].message)

    @property
    def values(self):
        """Of the newest diagnostics of the camera and of the engine."""
        items = [*self.statuses[-1].values, *self.engine_statuses[-1].values]
        return {item.key: item.value for item in items}

    @property
    def engine_values(self):
        return {item.key: item.value for item in self.engine_statuses[-1].values}

    def wait_value(self, key, test):
        """Wait until a diagnostic value passes; returns it."""
        assert until(lambda: test(int(self.values[key]))), self.values
        return int(self.values[key])

    def image(self, pixels=None, stamp=None, **changes):
        """An Image message, rgb8 unless changed."""
        if pixels is None:
            pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding='rgb8')
        message.step = pixels[0].nbytes
        message.data = array.array('B', pixels.tobytes())
        for name, value in changes.items():
            setattr(message, name, value)
        return self.stamped(message, stamp)

    def stamped(self, message, stamp=None):
        if stamp is None:
            self._stamp += SECOND // 10
            stamp = self._stamp
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
        message.header.frame_id = 'head_camera'
        return message

    def publish(self, message=None):
        self.publisher.publish(message or self.image())

    def stream(self, count, rate=20.0):
        """Publish `count` frames in real time; returns the stamp of the last."""
        for _ in range(count):
            message = self.image()
            self.publish(message)
            time.sleep(1 / rate)
        return message.header.stamp

    def ask_async(self, question, camera=None, **fields):
        camera = self.camera if camera is None else camera
        return self._query.call_async(Query.Request(question=question, camera=camera, **fields))

    def ask(self, question, camera=None):
        return self.wait(self.ask_async(question, camera))

    def start_goal(self, question, **fields):
        """Send a goal to ~/ask; returns its handle and the list that feedback is added to."""
        handle, feedback = self._send(self._ask, Ask.Goal(question=question, **fields))
        return handle, _Texts(feedback)

    def start_watch(self, condition, **fields):
        """Send a goal to ~/watch; returns its handle and the list that feedback is added to."""
        return self._send(self._watch, Watch.Goal(condition=condition, **fields))

    def _send(self, client, goal):
        feedback = []
        assert client.wait_for_server(TIMEOUT)
        handle = self.wait(
            client.send_goal_async(goal, lambda message: feedback.append(message.feedback))
        )
        assert handle.accepted
        return handle, feedback

    def call(self, service, kind, **fields):
        """The reply of a service below the node's name."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, f'infinitevl_node/{service}')
        assert self._clients[service].wait_for_service(TIMEOUT)
        return self.wait(self._clients[service].call_async(kind.Request(**fields)))

    def change_state(self, label):
        transition = Transition(label=label)
        return self.call('change_state', ChangeState, transition=transition).success

    def get_state(self):
        return self.call('get_state', GetState).current_state.label

    def save(self, name, camera=''):
        return self.call('save_memory', SaveMemory, name=name, camera=camera)

    def load(self, name, camera=''):
        return self.call('load_memory', LoadMemory, name=name, camera=camera)

    def wait_feedback(self):
        """The node finds this client's feedback subscription a little after its goals."""
        deadline = time.monotonic() + TIMEOUT
        feedback = []
        while not feedback and time.monotonic() < deadline:
            handle, feedback = self.start_goal('Ready?', max_tokens=8)
            self.wait(handle.get_result_async())
        assert feedback

    def reset(self):
        return self.call('reset', Trigger)

    @staticmethod
    def wait(future):
        assert until(future.done)
        return future.result()

    def close(self):
        """End it; a second time does nothing."""
        if not self.context.ok():
            return
        self.executor.shutdown()
        self._thread.join()
        self._ask.destroy()
        self._watch.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def end_participants():
    """End the DDS participants of nodes that were stopped, which live until Python collects them.

    Until then ~/change_state has a second server, which nobody spins, and a test that meets its
    end finds the service not ready or its call without a reply.
    """
    gc.collect()


class _Texts:
    """The texts of feedback, which goes on coming."""

    def __init__(self, feedback):
        self._feedback = feedback

    def __iter__(self):
        return (message.text for message in list(self._feedback))

    def __len__(self):
        return len(self._feedback)


@pytest.fixture
def host(checkpoint, monkeypatch):
    """Nodes in this process, whose diagnostics come at 10 Hz; stopped when the test ends."""
    monkeypatch.setattr(diagnostics, 'PERIOD', 0.1)
    hosted = []

    def host(**parameters):
        hosted.append(HostedNode(**{'model': str(checkpoint), **parameters}))
        return hosted[-1].node

    yield host
    while hosted:
        hosted.pop().stop()
    end_participants()


@pytest.fixture
def start(checkpoint):
    """Start nodes that are stopped, and must not have failed, when the test ends."""
    nodes = []

    def start(*arguments, **parameters):
        nodes.append(RunningNode(*arguments, **{'model': checkpoint, **parameters}))
        return nodes[-1]

    yield start
    codes = [node.stop() for node in nodes]
    print(*(node.log for node in nodes), sep='\n')  # pytest shows it with a failure
    assert codes == [0] * len(nodes), [node.log for node in nodes]


@pytest.fixture
def connect():
    """Make clients, connected when returned."""
    clients = []

    def connect(ready=True, **options):
        clients.append(Client(**options))
        if ready:
            clients[-1].wait_ready()
        else:
            assert until(lambda: len(clients[-1].engine_statuses) > 1)
        return clients[-1]

    yield connect
    while clients:
        clients.pop().close()
    end_participants()
