"""infinitevl_node: a camera topic in, captions and answers out.

One executor thread runs the callbacks, none of which waits; the engine's scheduler has the other
thread. Between them go frames (newest only), questions (a bounded queue) and futures.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
import torch
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from ..engine import Options, Scheduler, StreamingEngine, VisualMemory
from ..model.default import default_checkpoint
from . import parameters, stamps
from .camera import ImageSubscription
from .captions import Captions
from .diagnostics import Diagnostics
from .images import TRANSPORTS
from .questions import Questions, awaitable

RCLError = rclpy_implementation.RCLError
WARNING_PERIOD = 5.0  # seconds between warnings about bad frames

# Bytes of weights below which more threads gain nothing on a CPU: between two frames they fall
# asleep, and to wake them costs as much as they do (two cores, 4 M parameters: a frame of a 20 Hz
# camera takes 40 ms with two threads, 19 ms with one).
SMALL_NETWORK = 100_000_000


class InfiniteVLNode(Node):
    """The node. Raises ValueError (a CheckpointError among them) when it cannot start."""

    def __init__(self) -> None:
        super().__init__('infinitevl_node')
        parameters.declare(self)
        self._value = parameters.reader(self)
        self.engine = self._load_engine()
        self.memory = self.engine.new_memory()
        self._frame_id = ''
        self._captions = Captions(self, self._value)
        self.scheduler = Scheduler(
            self.engine, self._value('max_questions'), self._on_frame, self._on_frame_error
        )
        # A callback that awaits keeps a mutually exclusive group, the default, to itself.
        awaiting = ReentrantCallbackGroup()
        self._questions = Questions(
            self, self.scheduler, self.memory, self._value, self._why_no_frame, awaiting
        )
        self.create_service(Trigger, '~/reset', self._on_reset, callback_group=awaiting)
        transport = self._value('transport')
        self._decode = TRANSPORTS[transport][1]
        self.camera = ImageSubscription(
            self, transport, self._value('image_reliability'), self._on_image
        )
        self._diagnostics = Diagnostics(self)
        self.get_logger().info(
            f'ready: images from {self.camera.topic} ({transport}), questions at '
            f'{self.resolve_service_name("~/query")}'
        )

    def close(self) -> None:
        """End every question, then the node."""
        self.scheduler.close()
        self._questions.close()
        self.destroy_node()

    def _load_engine(self) -> StreamingEngine:
        model, device = self._value('model'), self._value('device')
        if not model:
            model = default_checkpoint()
            self.get_logger().warning(
                'no model set: this is the small one that comes with the package, which knows its '
                'rendered world alone; the parameter "model" names a checkpoint folder'
            )
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        dtype = self._value('dtype')
        fp8 = dtype == 'fp8'
        options = Options(
            frames_per_grid=self._value('frames_per_grid'),
            positions=self._value('positions'),
            prompt_layout=self._value('prompt_layout'),
        )
        side = self._value('frame_size')
        self.get_logger().info(f'loading {Path(model).expanduser()} on {device}')
        began = time.monotonic()
        engine = StreamingEngine.from_checkpoint(
            model,
            device,
            None if dtype == 'auto' or fp8 else getattr(torch, dtype),
            (side, side) if side else None,
            options,
            fp8,
        )
        if device == 'cpu' and sum(t.nbytes for t in engine.weights.tensors()) < SMALL_NETWORK:
            torch.set_num_threads(1)
        if not self.context.ok():  # asked to stop meanwhile
            raise ExternalShutdownException
        self.get_logger().info(
            f'loaded {engine.name} in {time.monotonic() - began:.1f} s: frames of '
            f'{engine.frame_size[1]} x {engine.frame_size[0]} pixels, {engine.weights.dtype}'
        )
        return engine

    def _on_image(self, message: Image | CompressedImage) -> None:
        header = message.header
        stamp = stamps.nanoseconds(header.stamp)
        if not stamp:
            # A camera that does not stamp its images: the time of arrival is the next best.
            stamp = self.get_clock().now().nanoseconds

        def pixels() -> np.ndarray:
            """On the engine's thread, when the frame's turn has come."""
            self._frame_id = header.frame_id
            return self._decode(message)

        self.scheduler.offer(self.memory, pixels, stamp)

    def _on_frame(self, memory: VisualMemory) -> None:
        """On the engine's thread, after a frame was taken."""
        self._captions.on_frame(self.scheduler, memory, self._frame_id)

    def _on_frame_error(self, memory: VisualMemory, error: Exception) -> None:
        """On the engine's thread, after a frame was refused."""
        self.get_logger().warning(
            f'{self.camera.topic}: frame refused: {error}', throttle_duration_sec=WARNING_PERIOD
        )

    def _why_no_frame(self) -> str:
        return f'no frame seen yet on {self.camera.topic} ({self.camera.publishers} publishers)'

    async def _on_reset(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        future, done = awaitable(self)

        def forgotten(frames: int) -> None:
            self._captions.reset()
            done(frames)

        self.scheduler.reset(self.memory, forgotten)
        response.success, response.message = True, f'forgot {await future} frames'
        return response


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 1 when it cannot start."""
    node, initialised = None, False
    try:
        rclpy.init(args=arguments)
        initialised = True
        node = InfiniteVLNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, ParameterException, RCLError) as error:
        if not initialised or rclpy.ok():  # else asked to stop while it was starting
            print(f'infinitevl_node: {error}', file=sys.stderr)
            return 1
    finally:
        # A second Ctrl-C (launch sends one too) must not break into the shutdown.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0
