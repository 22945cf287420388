"""Memories between the node and the disk: ~/reset, ~/save_memory, ~/load_memory, autosave."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from infinitevl_ros.srv import LoadMemory, SaveMemory

from ..engine import MemoryFileError, Snapshot
from .awaiting import awaitable

if TYPE_CHECKING:
    from .camera import Camera
    from .node import InfiniteVLNode

AUTOSAVE = 'autosave'
NAME = re.compile(r'[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}')
Result = TypeVar('Result')


class Memories:
    """Serves the cameras' memories. Files are written and read on a thread of their own."""

    def __init__(self, node: InfiniteVLNode):
        self._node, self._log = node, node.get_logger()
        folder = node.value('memory_dir')
        home = os.environ.get('ROS_HOME') or '~/.ros'
        self.folder = Path(folder or f'{home}/infinitevl').expanduser().absolute()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='files')
        self._may_restore, self._saved = False, time.monotonic()
        self._autosaving: Future | None = None
        group = node.awaiting
        node.create_service(SaveMemory, '~/save_memory', self._on_save, callback_group=group)
        node.create_service(LoadMemory, '~/load_memory', self._on_load, callback_group=group)
        prefixes = {'~/': node.cameras} | {c.prefix: [c] for c in node.cameras if c.name}
        for prefix, cameras in prefixes.items():
            node.create_service(
                Trigger, f'{prefix}reset', self._resetter(cameras), callback_group=group
            )
        # Steady: simulated time may stand still or run.
        node.create_timer(1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        self._thread.shutdown()

    def configure(self) -> None:
        """The memories are new."""
        self._may_restore = self._node.value('restore')

    def activate(self) -> None:
        """Go on from what was saved by autosave, if the memories are new and that is wanted."""
        self._saved = time.monotonic()
        if self._may_restore:
            try:
                self._thread.submit(self._restore).result()
            except (OSError, RuntimeError) as error:
                self._log.error(f'nothing restored: {error}')
        self._may_restore = False

    def deactivate(self) -> None:
        """Autosave, if that is wanted; returns when it is written."""
        if self._node.value('autosave_period'):
            self._thread.submit(self._autosave).result()

    def _on_timer(self) -> None:
        period = self._node.value('autosave_period')
        due = period and time.monotonic() - self._saved >= period
        under_way = self._autosaving is not None and not self._autosaving.done()
        if due and not under_way and self._node.state == 'active':
            self._autosaving = self._thread.submit(self._autosave)

    def _resetter(self, cameras: list[Camera]) -> Callable:
        async def on_reset(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            future, done = awaitable(self._node)

            def forget() -> None:
                try:
                    frames = sum(self._forget(camera) for camera in cameras)
                except Exception as error:  # the client is told
                    done((False, str(error)))
                else:
                    done((True, f'forgot {frames} frames'))

            scheduler = self._node.scheduler
            try:
                if scheduler is None:
                    raise RuntimeError(self._node.why_not())
                # Not by the thread for files, which may be busy writing one.
                scheduler.call(forget)
            except RuntimeError as error:
                response.success, response.message = False, str(error)
                return response
            response.success, response.message = await future
            if self._node.value('autosave_period'):
                # Or a restart would bring back what was forgotten.
                with contextlib.suppress(RuntimeError):  # shutting down
                    self._thread.submit(self._discard, cameras)
            return response

        return on_reset

    def _forget(self, camera: Camera) -> int:
        """On the engine's thread."""
        frames = self._node.scheduler.forget(camera.memory)
        camera.forget()
        return frames

    async def _on_save(
        self, request: SaveMemory.Request, response: SaveMemory.Response
    ) -> SaveMemory.Response:
        def save() -> str:
            cameras = self._cameras(request.camera)
            paths = self._save(self._checked(request.name), cameras)
            response.paths = [str(path) for path in paths.values()]
            return ', '.join(f'{c.memory.frames} frames to {p}' for c, p in paths.items())

        response.success, response.message = await self._result(save)
        return response

    async def _on_load(
        self, request: LoadMemory.Request, response: LoadMemory.Response
    ) -> LoadMemory.Response:
        def load() -> str:
            cameras = self._cameras(request.camera)
            frames = self._load(self._checked(request.name), cameras)
            return f'remembering {frames} frames'

        response.success, response.message = await self._result(load)
        return response

    async def _result(self, function: Callable[[], str]) -> tuple[bool, str]:
        """Run on the thread for files: success and its message, or the reason why not."""
        future, done = awaitable(self._node)

        def tell(job: Future) -> None:
            error = job.exception()
            done((error is None, str(error or '') or job.result()))

        if self._node.scheduler is None:
            return False, self._node.why_not()
        self._thread.submit(function).add_done_callback(tell)
        return await future

    def _on_engine(self, function: Callable[[], Result]) -> Result:
        """The result of a call on the engine's thread, which comes between frames and tokens."""
        scheduler = self._node.scheduler
        if scheduler is None:
            raise RuntimeError(self._node.why_not())
        results: queue.Queue = queue.Queue()

        def run() -> None:
            try:
                results.put((function(), None))
            except Exception as error:  # handed on to whoever asked
                results.put((None, error))

        scheduler.call(run)
        result, error = results.get()
        if error:
            raise error
        return result

    def _cameras(self, name: str) -> list[Camera]:
        return [self._node.camera(name)] if name else self._node.cameras

    @staticmethod
    def _checked(name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                f'"{name}" is not a name for a memory: expected letters, digits, "_", "-" and '
                '".", not at the beginning; files lie in memory_dir alone'
            )
        return name

    def _autosave_name(self, camera: Camera) -> str:
        """One for each node and model: others go on from theirs."""
        node = self._node.get_fully_qualified_name().replace('/', '.')
        return f'{AUTOSAVE}{node}.{camera.memory.fingerprint}'

    def _discard(self, cameras: list[Camera]) -> None:
        for camera in cameras:
            if camera.memory is not None and not camera.memory.frames:
                self._path(self._autosave_name(camera), camera).unlink(missing_ok=True)

    def _path(self, name: str, camera: Camera) -> Path:
        return self.folder / f'{name}{f".{camera.name}" if camera.name else ""}.safetensors'

    def _save(self, name: str, cameras: list[Camera]) -> dict[Camera, Path]:
        snapshots = self._on_engine(lambda: [camera.memory.snapshot() for camera in cameras])
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = {camera: self._path(name, camera) for camera in cameras}
        for snapshot, path in zip(snapshots, paths.values(), strict=True):
            snapshot.write(path)
        return paths

    def _load(self, name: str, cameras: list[Camera]) -> int:
        """All of them or, when one does not fit, none; returns how many frames they hold."""
        snapshots = [Snapshot.read(self._path(name, camera)) for camera in cameras]

        def take_over() -> int:
            for camera, snapshot in zip(cameras, snapshots, strict=True):
                camera.memory.check(snapshot)
            for camera, snapshot in zip(cameras, snapshots, strict=True):
                self._forget(camera)
                camera.memory.restore(snapshot)
            return sum(camera.memory.frames for camera in cameras)

        return self._on_engine(take_over)

    def _autosave(self) -> None:
        for camera in self._node.cameras:
            try:
                if camera.memory is not None and camera.memory.frames:
                    self._save(self._autosave_name(camera), [camera])
            except Exception as error:  # nobody else would be told
                self._log.error(f'autosave failed: {error}')
        self._saved = time.monotonic()

    def _restore(self) -> None:
        for camera in self._node.cameras:
            name = self._autosave_name(camera)
            path = self._path(name, camera)
            if camera.memory.frames or not path.exists():
                continue
            try:
                frames = self._load(name, [camera])
                self._log.info(f'{camera.topic}: remembering {frames} frames of {path}')
            except MemoryFileError as error:
                # The next autosave must not overwrite what other settings may still read.
                aside = path.with_suffix('.refused')
                path.replace(aside)
                self._log.warning(f'nothing restored, kept as {aside}: {error}')
