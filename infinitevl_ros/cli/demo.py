"""`./dev demo`: a camera process, the real node and a user of it, over real DDS."""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ..model.default import default_checkpoint
from ..replay.record import one_line
from ..world.patrol import story
from . import output
from .camera import PATROL_RATE, video_frames
from .contact_sheet import Answer, Frame, contact_sheet
from .story import Planned, plan_questions

# Asked of a video, of which nobody knows the truth.
QUESTIONS = (
    'What do you see now?',
    'Which objects have you seen so far?',
    'Where were you before this?',
)
SEED = 4
DEFAULT_SECONDS = 30.0
START_TIMEOUT = 120.0
THUMBNAIL_WIDTH = 320
# Thumbnails are kept until a caption names their stamp; captions come within this many frames.
RECENT_FRAMES = 300


@dataclass
class Report:
    """What the demo measured; written as it is by --json. Stamps in seconds of stream time.

    An answer's `truth` is None where it is not known, its `evidence_age` where there is none.
    """

    frames_sent: int = 0
    frames_taken: int = 0
    frames_dropped: int = 0
    fps: float = 0.0
    memory_bytes_start: int = 0
    memory_bytes_end: int = 0
    captions: list[dict] = field(default_factory=list)
    answers: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """A question to ask at stream time `due` [s].

    `truth` tells the right answer for a memory whose newest frame has a given stream time, and how
    long before that the newest evidence for it was in view [s].
    """

    due: float
    question: str
    truth: Callable[[float], tuple[str | None, float | None]] = lambda _: (None, None)


class Viewer:
    """A ROS client that looks on: captions as they come, their frames, diagnostics."""

    def __init__(self, report: Report):
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import Image

        from infinitevl_ros.msg import Caption
        from infinitevl_ros.srv import Query

        self.report = report
        self.frames: list[Frame] = []
        self.status: dict[str, str] = {}
        self._query = Query
        self._first_stamp: float | None = None
        self.recent: dict[float, np.ndarray] = {}
        rclpy.init()
        self.node = rclpy.create_node('demo')
        self.node.create_subscription(Image, 'image', self._on_image, 1)
        self.node.create_subscription(Caption, 'infinitevl_node/captions', self._on_caption, 10)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_status, 10)
        self.client = self.node.create_client(Query, 'infinitevl_node/query')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def spin_until(self, condition, timeout: float, process: subprocess.Popen) -> bool:
        """Handle messages until `condition()`; false after `timeout` or when the process ends."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline or process.poll() is not None:
                return condition()
            self._executor.spin_once(timeout_sec=0.05)
        return True

    @property
    def elapsed(self) -> float:
        """Stream time of the newest frame; below zero before the first."""
        return max(self.recent) - self._first_stamp if self.recent else -1.0

    def ask(self, asked: Asked, process: subprocess.Popen) -> None:
        question, truth, age = asked.question, None, None
        future = self.client.call_async(self._query.Request(question=question))
        began = time.monotonic()
        self.spin_until(future.done, 120.0, process)
        seconds = time.monotonic() - began
        reply = future.result() if future.done() else None
        if reply is None:
            answer = '(no reply)'
        else:
            answer = reply.answer if reply.success else f'({reply.message})'
            truth, age = asked.truth(_seconds(reply.last_stamp) - self._first_stamp)
        self.report.answers.append(
            {
                'question': question,
                'answer': answer,
                'truth': truth,
                'evidence_age': age,
                'seconds': seconds,
            }
        )
        verdict = '' if truth is None else f' (truth: {truth})'
        print(f'  ? {question}\n  = {one_line(answer)}{verdict}  [{seconds:.2f} s]', flush=True)

    def close(self) -> None:
        import rclpy

        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def _on_image(self, message) -> None:
        stamp = _seconds(message.header.stamp)
        if self._first_stamp is None:
            self._first_stamp = stamp
        pixels = np.frombuffer(message.data, np.uint8)
        pixels = pixels.reshape(message.height, message.width, 3)
        size = (THUMBNAIL_WIDTH, THUMBNAIL_WIDTH * message.height // message.width)
        self.recent[stamp] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        while len(self.recent) > RECENT_FRAMES:
            del self.recent[next(iter(self.recent))]

    def _on_caption(self, message) -> None:
        stamp = _seconds(message.last_stamp)
        since = stamp - (stamp if self._first_stamp is None else self._first_stamp)
        self.report.captions.append({'stamp': since, 'text': message.text})
        print(f'  {since:5.1f} s  {one_line(message.text)}', flush=True)
        if self.recent:
            nearest = min(self.recent, key=lambda other: abs(other - stamp))
            self.frames.append(Frame(since, self.recent[nearest], message.text))

    def _on_status(self, message) -> None:
        for status in message.status:
            if status.name == 'infinitevl_node: stream':
                self.status = {item.key: item.value for item in status.values}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--video', type=Path, help='play this file instead of a rendered patrol')
    parser.add_argument('--seconds', type=float, help='length of the stream at most')
    output.add_json(parser)
    parser.add_argument('--model', type=Path, help='checkpoint folder (default: models/tiny)')
    parser.add_argument(
        '--picture', type=Path, default=Path('demo.png'), help='default: %(default)s'
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 1 when frames, captions or answers are missing at the end."""
    report = Report()
    with contextlib.redirect_stdout(output.results(arguments)):
        whole = _run(arguments, report)
    if whole:
        output.write_json(arguments.json, report)
    return 0 if whole and report.frames_taken and report.captions and report.answers else 1


def _run(arguments: argparse.Namespace, report: Report) -> bool:
    """Stream, ask and draw; false when the node ended before."""
    seconds = _seconds_to_stream(arguments)
    # Nobody else's nodes, and nobody else sees these.
    os.environ['ROS_DOMAIN_ID'] = str(random.randrange(1, 102))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    with contextlib.ExitStack() as stack:
        model = arguments.model or default_checkpoint()
        if arguments.video and not arguments.model:
            print(
                'The small model knows its rendered world alone: of a video its words are guesses.'
            )
        source = arguments.video.name if arguments.video else 'a rendered patrol'
        print(f'Streaming {source} for {seconds:.0f} s; captions as they come:', flush=True)
        viewer = _stream(stack, arguments.video, seconds, model, report)
    if viewer is not None:
        _show(report, viewer.frames, source, seconds, arguments.picture)
    return viewer is not None


def _seconds_to_stream(arguments: argparse.Namespace) -> float:
    """Length of the stream; ValueError, before anything starts, for an argument at fault."""
    output.check_outputs(arguments.json, arguments.picture, inputs=(arguments.video,))
    seconds = DEFAULT_SECONDS if arguments.seconds is None else arguments.seconds
    if not 0 < seconds < math.inf:
        raise ValueError(f'--seconds is {seconds}, expected more than 0')
    if not arguments.video:
        return seconds
    rate, frames = video_frames(arguments.video)
    return sum(1 for _ in itertools.islice(frames, math.ceil(seconds * rate))) / rate


def _stream(
    stack: contextlib.ExitStack,
    video: Path | None,
    seconds: float,
    model: Path,
    report: Report,
) -> Viewer | None:
    """The three processes from first to last frame; fills in the report."""
    node = stack.enter_context(child_process(_node_command(model, seconds)))
    viewer = Viewer(report)
    stack.callback(viewer.close)
    ready = viewer.spin_until(
        lambda: viewer.client.service_is_ready() and int(viewer.status.get('memory_bytes', 0)),
        START_TIMEOUT,
        node,
    )
    if not ready:
        print('the node did not start; its messages are above', file=sys.stderr)
        return None
    report.memory_bytes_start = int(viewer.status['memory_bytes'])
    command = [sys.executable, '-m', 'infinitevl_ros.cli.camera', '--seconds', str(seconds)]
    command += ['--seed', str(SEED)]
    command += ['--subscribers', '2']  # the node, and this process for the thumbnails
    if video:
        command += ['--video', str(video)]
    camera = stack.enter_context(child_process(command, stdout=subprocess.PIPE, text=True))
    viewer.spin_until(lambda: bool(viewer.recent), 30.0, camera)
    for asked in _questions(video, seconds):
        viewer.spin_until(
            lambda due=asked.due: viewer.elapsed >= due or camera.poll() is not None,
            seconds + 30,
            node,
        )
        viewer.ask(asked, node)
    viewer.spin_until(lambda: camera.poll() is not None, seconds + 30, node)
    sent = json.loads(camera.stdout.read() or '{"sent": 0, "seconds": 1}')
    # Diagnostics come once a second: the second one from now tells of every frame.
    after = time.monotonic() + 2.2
    viewer.spin_until(lambda: time.monotonic() > after, 5.0, node)
    report.frames_sent = sent['sent']
    report.frames_taken = int(viewer.status['frames_taken'])
    report.frames_dropped = report.frames_sent - report.frames_taken
    report.fps = report.frames_taken / sent['seconds']
    report.memory_bytes_end = int(viewer.status['memory_bytes'])
    return viewer


def _questions(video: Path | None, seconds: float) -> list[Asked]:
    if video:
        step = seconds / (len(QUESTIONS) + 0.2)
        return [Asked(step * i, question) for i, question in enumerate(QUESTIONS, start=1)]
    patrol = story(SEED, round(seconds * PATROL_RATE) or 1)

    def truth(planned: Planned, elapsed: float) -> tuple[str, float | None]:
        # The memory may be a frame or two ahead of what was planned, or behind.
        now = planned.at(patrol, round(elapsed * PATROL_RATE) + 1)
        return now.truth, None if now.age is None else now.age / PATROL_RATE

    return [
        Asked((one.frame - 1) / PATROL_RATE, one.question, functools.partial(truth, one))
        for one in plan_questions(patrol)
    ]


def _node_command(model: Path, seconds: float) -> list[str]:
    """The installed node, as `ros2 run` would start it."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        prefix = Path(get_package_prefix('infinitevl_ros'))
    except PackageNotFoundError:
        raise ValueError('the demo runs the ROS package: build it with colcon first') from None
    node = prefix / 'lib/infinitevl_ros/infinitevl_node'
    parameters = {
        'model': model,
        'caption_period': min(5.0, seconds / 7),
        'max_tokens': 24,
    }
    command = [sys.executable, str(node), '--ros-args', '--log-level', 'warn']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    return command


@contextlib.contextmanager
def child_process(command: list[str], **options: object) -> Iterator[subprocess.Popen]:
    """A child process that is ended, gently first, when the block is left."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _show(
    report: Report,
    frames: list[Frame],
    source: str,
    seconds: float,
    picture: Path,
) -> None:
    megabytes = (report.memory_bytes_start / 1e6, report.memory_bytes_end / 1e6)
    latency = [answer['seconds'] for answer in report.answers]
    known = [answer for answer in report.answers if answer['truth'] is not None]
    right = sum(answer['answer'] == answer['truth'] for answer in known)
    print(
        f'Frames: {report.frames_sent} sent, {report.frames_taken} taken, '
        f'{report.frames_dropped} dropped; {report.fps:.1f} frames/s.\n'
        f'Answers: {len(latency)}, slowest {max(latency, default=0):.2f} s'
        f'{f"; {right} of {len(known)} right" if known else ""}.\n'
        f'Memory: {megabytes[0]:.3f} MB at the start, {megabytes[1]:.3f} MB at the end.'
    )
    answers = [Answer(**answer) for answer in report.answers]
    subtitle = (
        f'{seconds:.0f} s, {report.frames_taken} frames taken at {report.fps:.1f} frames/s, '
        f'{report.frames_dropped} dropped; memory {megabytes[1]:.2f} MB from first to last frame'
        f'{f"; {right} of {len(known)} answers right" if known else ""}'
    )
    contact_sheet(picture, f'infinitevl_ros: {source}', subtitle, frames, answers)
    print(f'Wrote {picture}.')


def _seconds(stamp) -> float:
    return stamp.sec + stamp.nanosec * 1e-9
