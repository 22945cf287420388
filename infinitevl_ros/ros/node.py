"""infinitevl_node: camera topics in, captions and answers out; a managed node.

One executor thread runs the callbacks, none of which waits; the engine's scheduler has another.
Between them go frames (newest only), questions (bounded queues) and futures.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import rclpy
import torch
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from ..engine import Options, Scheduler, StreamingEngine, VisualMemory
from ..engine.loading import chosen_device, load_engine
from ..model.config import CheckpointError
from ..model.default import default_checkpoint
from .camera import Camera
from .diagnostics import Diagnostics
from .lifecycle import ManagedNode, RCLError, logged
from .memories import Memories
from .parameters import Values
from .questions import Questions
from .watches import Watches

# A branch each for questions and for checks; every camera's captions have one more.
LANES = 2
FAREWELL = 2.0  # seconds that requests have to be told of the end
TOLD = 0.2  # seconds from then on until their replies are on their way
NEXT_STEP = {'unconfigured': 'configure', 'inactive': 'activate'}


class StoppedError(Exception):
    """The node was asked to end while it was loading."""


class InfiniteVLNode(ManagedNode):
    """The node; `options` are rclpy's for a node. Raises ValueError when a parameter is wrong.

    `engine` and `scheduler` are there from configure to cleanup. `failure` says why the node is
    not what it should be; '' when it is.
    """

    def __init__(self, **options: object) -> None:
        super().__init__('infinitevl_node', **options)
        self.value = Values(self)
        self.engine: StreamingEngine | None = None
        self.scheduler: Scheduler | None = None
        self.failure = ''
        self.exit_code = 0
        self._stopping = False
        self._starter: threading.Thread | None = None
        self.cameras = [Camera(self, name) for name in self.value('cameras')]
        self._questions = Questions(self)
        self.watches = Watches(self)
        self._memories = Memories(self)
        self._diagnostics = Diagnostics(self)

    def start(self) -> None:
        """Do what `autostart` says, on a thread of its own; the executor may spin meanwhile."""
        if self.value('autostart'):
            self._starter = threading.Thread(target=self._autostart, name='autostart')
            self._starter.start()
        else:
            name = self.get_fully_qualified_name()
            self.get_logger().info(
                f'autostart is off: waiting for ros2 lifecycle set {name} configure, then activate'
            )

    def end(self) -> None:
        """Take no more frames and end every request, while the executor still tells them so."""
        if self._stopping:
            return
        self._stopping = True
        if self._starter is not None:
            self._starter.join()
        with self._changing:  # a transition that is under way
            self._stop('the node is shutting down')
        deadline = time.monotonic() + FAREWELL
        while (self._questions.open or len(self.watches)) and time.monotonic() < deadline:
            time.sleep(0.02)

    def close(self) -> None:
        """End everything and give it back."""
        self.end()
        with self._changing:
            self._free()
        self._memories.close()
        for camera in self.cameras:
            camera.overlay.close()
        self._questions.close()
        self.watches.close()
        self.destroy_node()

    def camera(self, name: str) -> Camera:
        """The camera of a name, or the only one; ValueError tells which there are."""
        found = [c for c in self.cameras if c.name == name or (not name and len(self.cameras) < 2)]
        if not found:
            names = ', '.join(camera.name for camera in self.cameras)
            one = names or 'one without a name'
            raise ValueError(f'camera is "{name}", expected {"one of " if names else ""}{one}')
        return found[0]

    def seen_by(self, name: str) -> Camera:
        """The camera of a name, ready to be asked about; ValueError when there is nothing yet."""
        self.check_active()
        camera = self.camera(name)
        if not camera.memory.frames:
            raise ValueError(camera.why_no_frame)
        return camera

    def check_active(self) -> None:
        """Raise ValueError with what to do when the node takes no frames."""
        if self.state != 'active' or self.scheduler is None:
            raise ValueError(self.why_not())

    def why_not(self) -> str:
        """What state the node is in, why, and what leads out of it."""
        step = NEXT_STEP.get(self.state)
        advice = f'; next: ros2 lifecycle set {self.get_fully_qualified_name()} {step}'
        return (
            f'the node is {self.state}{f" ({self.failure})" if self.failure else ""}'
            f'{advice if step else ""}'
        )

    @logged
    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and allocate everything; FAILURE when there is none to be used."""
        self.failure = ''
        try:
            self.engine = self._load_engine()
        except (ValueError, OSError, RuntimeError) as error:
            self._fail(f'{error}{_advice(error)}')
            return TransitionCallbackReturn.FAILURE
        except StoppedError:
            return TransitionCallbackReturn.FAILURE
        self.scheduler = Scheduler(
            self.engine,
            self.value('max_questions'),
            self._on_frame,
            self._on_frame_error,
            self._on_failure,
            self.value('max_watches'),
        )
        for camera in self.cameras:
            camera.configure(self.engine, self.scheduler)
        self._memories.configure()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, _state: LifecycleState) -> None:
        self._memories.activate()
        for camera in self.cameras:
            camera.activate()
        topics = ', '.join(camera.topic for camera in self.cameras)
        self.get_logger().info(
            f'ready: images from {topics}, questions at {self.resolve_service_name("~/query")}'
        )

    @logged
    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking frames; memories stay. ERROR when it is the engine that stopped."""
        self._stop(f'the node was deactivated{f": {self.failure}" if self.failure else ""}')
        return TransitionCallbackReturn.ERROR if self.failure else TransitionCallbackReturn.SUCCESS

    @logged
    def on_cleanup(self, _state: LifecycleState) -> None:
        self._free()

    @logged
    def on_shutdown(self, _state: LifecycleState) -> None:
        self._stop('the node is shutting down')
        self._free()

    @logged
    def on_error(self, state: LifecycleState) -> None:
        self.get_logger().error(
            f'{self.failure or "a transition failed"}; the node was {state.label} and gives up '
            'its model and memories'
        )
        self._stop('the engine failed')
        self._free()

    @property
    def _ending(self) -> bool:
        """Asked to end; what fails now is no failure."""
        return self._stopping or not self.context.ok()

    def _autostart(self) -> None:
        if self.transition('configure') and not self._ending and self.transition('activate'):
            return
        self._give_up()

    def _give_up(self) -> None:
        if not self._ending:
            self.exit_code = 1
        rclpy.try_shutdown(context=self.context)

    def _on_failure(self, error: Exception) -> None:
        """On the engine's thread, which the way through on_error ends."""
        if self.failure:
            return
        self._fail(f'the engine failed: {error}')
        threading.Thread(target=self._recover, name='recover', daemon=True).start()

    def _recover(self) -> None:
        """Through on_error, and with autostart once more from the start.

        An engine that failed before it took a frame would only fail again.
        """
        worked = any(self.scheduler.counts(camera.memory).taken for camera in self.cameras)
        self.transition('deactivate', wait=True)
        if self.value('autostart'):
            if worked and not self._ending:
                self._autostart()
            else:
                self._give_up()

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self.get_logger().error(reason)

    def _stop(self, message: str) -> None:
        """No more frames; every question and watch ends with this message."""
        for camera in self.cameras:
            camera.deactivate()
        self.watches.end_all(message)
        if self.scheduler is not None:
            self.scheduler.end_all(message)
            if not self.failure:
                self._memories.deactivate()

    def _free(self) -> None:
        """Give the model and the memories back, and the GPU with them."""
        if self.scheduler is not None:
            self.scheduler.close()
        for camera in self.cameras:
            camera.cleanup()
        self.engine = self.scheduler = None
        gc.collect()  # graphs and their runner refer to each other
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _on_frame(self, memory: VisualMemory) -> None:
        """On the engine's thread, after a frame was taken."""
        camera = next(camera for camera in self.cameras if camera.memory is memory)
        camera.on_frame()
        self.watches.on_frame(camera)

    def _on_frame_error(self, memory: VisualMemory, error: Exception) -> None:
        """On the engine's thread, after a frame was refused."""
        next(c for c in self.cameras if c.memory is memory).on_frame_error(error)

    def _load_engine(self) -> StreamingEngine:
        model, device = self.value('model'), self.value('device')
        if not model:
            model = default_checkpoint()
            self.get_logger().warning(
                'no model set: this is the small one that comes with the package, which knows its '
                'rendered world alone; the parameter "model" names a checkpoint folder'
            )
        device, side = chosen_device(device), self.value('frame_size')
        options = Options(
            cameras=len(self.cameras),
            branches=LANES + len(self.cameras),
            frames_per_grid=self.value('frames_per_grid'),
            positions=self.value('positions'),
            prompt_layout=self.value('prompt_layout'),
        )
        self.get_logger().info(f'loading {Path(model).expanduser()} on {device}')
        began = time.monotonic()
        engine = load_engine(
            model,
            device,
            self.value('dtype'),
            self._on_progress,
            (side, side) if side else None,
            options,
        )
        self.get_logger().info(
            f'loaded {engine.name} in {time.monotonic() - began:.1f} s: '
            f'{engine.weight_bytes / 1e9:.2f} GB of '
            f'{engine.weights.dtype}, frames of {engine.frame_size[1]} x {engine.frame_size[0]} '
            'pixels'
        )
        return engine

    def _on_progress(self, line: str) -> None:
        self.get_logger().info(line)
        if self._ending:
            raise StoppedError


def _advice(error: Exception) -> str:
    if not isinstance(error, CheckpointError | FileNotFoundError):
        return ''
    return (
        '; the parameter "model" names a checkpoint folder, with config.json, safetensors and '
        "the tokenizer's files"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 1 when it cannot start."""
    signals = _take_signals()
    node, initialised = None, False
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        initialised = True
        node = InfiniteVLNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        threading.Thread(
            target=_end_at_signal, args=(node, signals), name='signals', daemon=True
        ).start()
        node.start()
        spin(executor, node)
    except (ValueError, ParameterException, RCLError) as error:
        if not initialised or rclpy.ok():  # else asked to stop while it was starting
            print(f'infinitevl_node: {error}', file=sys.stderr)
            return 1
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return node.exit_code


def spin(executor: SingleThreadedExecutor, node: InfiniteVLNode) -> None:
    """Until either is shut down; a callback that fails is logged and ends nothing."""
    while True:
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return
        except Exception:
            node.get_logger().error(f'a callback failed: {traceback.format_exc()}')


def _take_signals() -> int:
    """A pipe that has a byte for every SIGINT and SIGTERM, which break into nothing from now on.

    Python's own handlers would have to wait until the executor's thread wakes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer)
    return reader


def _end_at_signal(node: InfiniteVLNode, signals: int) -> None:
    os.read(signals, 1)
    try:
        node.end()
        time.sleep(TOLD)
    finally:
        rclpy.try_shutdown(context=node.context)
