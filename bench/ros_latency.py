"""The ROS side alone: from a camera's publish to the engine's hand-over, and the CPU that takes.

Run: ./dev run python3 bench/ros_latency.py --json FILE. A camera process publishes images over DDS
in real time, each stamped when it is sent. The node runs as it always does, but for its scheduler,
which notes when a frame is handed over and decodes it, and leaves the network out: what is
measured is what ROS costs.
"""

from __future__ import annotations

import argparse
import array
import importlib.metadata
import json
import os
import platform
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

# Frames at the start that are not counted: the first ones fault in every page.
WARM_UP = 30
TARGET_MS, TARGET_CPU = 10.0, 60.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--width', type=int, default=1280)
    parser.add_argument('--height', type=int, default=720)
    parser.add_argument('--encoding', default='rgb8', choices=('rgb8', 'bgr8'))
    parser.add_argument('--rate', type=float, default=30.0, help='frames a second')
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--profile', type=Path, help='Fast DDS profile of camera and node')
    parser.add_argument('--json', type=Path, help='write the result to this file')
    parser.add_argument('--camera', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.camera:
        publish(options)
        return 0
    if options.profile:
        os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(options.profile.resolve(strict=True))
    os.environ['ROS_DOMAIN_ID'] = str(random.randrange(1, 102))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    result = measure(options)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + '\n')
    return 0


def publish(options: argparse.Namespace) -> None:
    """The camera: as many images as the options say, reliably."""
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node('latency_camera')
    publisher = node.create_publisher(Image, 'image', QoSProfile(depth=2))
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    time.sleep(1.0)  # the node finds this publisher a little later
    pixels = np.random.default_rng(0).integers(
        0, 256, (options.height, options.width, 3), np.uint8
    )
    message = Image(height=options.height, width=options.width, encoding=options.encoding)
    message.step = pixels[0].nbytes
    message.data = array.array('B', pixels.tobytes())
    began = time.monotonic()
    for number in range(round(options.seconds * options.rate)):
        time.sleep(max(0.0, began + number / options.rate - time.monotonic()))
        stamp = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        publisher.publish(message)
    publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=2))
    node.destroy_node()
    rclpy.shutdown()


class Recorder:
    """Takes frames where the engine would: notes how old each is, and the CPU used so far."""

    def __init__(self) -> None:
        self.ages: list[int] = []
        self.decoding: list[float] = []
        self.usage: list[tuple[float, float]] = []

    def offer(self, _memory: object, source: Callable[..., np.ndarray], stamp: int) -> None:
        from infinitevl_ros.media.images import fresh

        self.ages.append(time.time_ns() - stamp)
        began = time.perf_counter()
        source(fresh)
        self.decoding.append(time.perf_counter() - began)
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.usage.append((time.monotonic(), used.ru_utime + used.ru_stime))


def measure(options: argparse.Namespace) -> dict:
    """Run node and camera; the figures as --json writes them."""
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    from infinitevl_ros.ros.node import InfiniteVLNode

    rclpy.init()
    node = InfiniteVLNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if not (node.transition('configure') and node.transition('activate')):
        raise RuntimeError('the node did not start; its messages are above')
    recorder = Recorder()
    node.scheduler.offer = recorder.offer
    command = [sys.executable, __file__, '--camera']
    for name in ('width', 'height', 'encoding', 'rate', 'seconds'):
        command += [f'--{name}', str(getattr(options, name))]
    camera = subprocess.Popen(command)

    def stop() -> None:
        camera.wait()
        time.sleep(0.5)
        rclpy.shutdown()

    threading.Thread(target=stop).start()
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    finally:
        camera.kill()
        node.close()
    return summary(options, recorder)


def summary(options: argparse.Namespace, recorder: Recorder) -> dict:
    ages = np.array(recorder.ages[WARM_UP:]) / 1e6
    (first, before), (last, after) = recorder.usage[WARM_UP], recorder.usage[-1]
    return {
        'image': f'{options.width}x{options.height} {options.encoding}',
        'profile': options.profile.name if options.profile else '',
        'rate': options.rate,
        'frames_sent': round(options.seconds * options.rate),
        'frames_received': len(recorder.ages),
        'latency_ms': {
            'median': float(np.median(ages)),
            'p99': float(np.percentile(ages, 99)),
            'longest': float(ages.max()),
        },
        'decode_ms': float(np.median(recorder.decoding[WARM_UP:]) * 1e3),
        'cpu_percent_of_a_core': 100 * (after - before) / (last - first),
        'hardware': f'{platform.machine()}, {os.cpu_count()} cores',
        'versions': {
            'python': platform.python_version(),
            'numpy': np.__version__,
            'rclpy': _version('ros-rclpy'),
        },
        'date': date.today().isoformat(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # a distribution's
        return os.environ.get('ROS_DISTRO', '')


def table(result: dict) -> str:
    latency = result['latency_ms']
    rows = [
        ('images', f'{result["image"]} at {result["rate"]:g} Hz'),
        ('Fast DDS profile', result['profile'] or 'none'),
        ('frames received of those sent', f'{result["frames_received"]}/{result["frames_sent"]}'),
        (f'publish to hand-over, median (target {TARGET_MS:g} ms)', f'{latency["median"]:.1f} ms'),
        ('99 of 100 take less than', f'{latency["p99"]:.1f} ms'),
        ('the longest', f'{latency["longest"]:.1f} ms'),
        ('message to RGB, median', f'{result["decode_ms"]:.2f} ms'),
        (
            f'CPU of the node, of one core (target {TARGET_CPU:g} %)',
            f'{result["cpu_percent_of_a_core"]:.0f} %',
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'{name:<{width}}  {value}' for name, value in rows)


if __name__ == '__main__':
    sys.exit(main())
