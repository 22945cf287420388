"""The whole node on a GPU: a camera over DDS at its rate, and questions without a pause.

Run: ./dev run python3 bench/node.py --params-file config/gpu.yaml --json FILE. Without --model a
folder with the 4B shape's seeded random weights is written first (9 GB, in the temporary folder):
what it says is noise, what it costs is not. The node is started as `ros2 run` starts it; frames
are counted by its diagnostics, answers timed by their client.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from safetensors.torch import save_file

from infinitevl_ros.cli.demo import child_process
from infinitevl_ros.cli.measure import summary
from infinitevl_ros.cli.random_checkpoint import write_random_checkpoint
from infinitevl_ros.cli.random_weights import SHAPES, RandomTensors
from infinitevl_ros.model.config import ModelConfig

QUESTION = 'where did you last see the red cup that was on the table by the window?'
START_TIMEOUT = 300.0
CAMERA = Path(__file__).with_name('ros_latency.py')


def write_random_4b(folder: Path) -> None:
    """A checkpoint of the 4B shape that loads like the published one."""
    write_random_checkpoint(folder)
    config = {**json.loads((folder / 'config.json').read_text()), **SHAPES['4b']}
    config['eos_token_id'] = config['vocab_size'] - 1  # rarely the likeliest: answers are long
    (folder / 'config.json').write_text(json.dumps(config))
    size = {'size': {'height': 448, 'width': 448}}
    (folder / 'preprocessor_config.json').write_text(json.dumps(size))
    sizes = ModelConfig.from_dict(config, 'the 4B shape')
    tensors = RandomTensors(sizes, torch.device('cuda'), torch.bfloat16, seed=0)
    save_file({name: tensors[name].cpu() for name in tensors}, folder / 'model.safetensors')


class User:
    """A client that asks one question after another and reads the diagnostics."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor

        from infinitevl_ros.srv import Query

        rclpy.init()
        self.node = rclpy.create_node('user')
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_status, 10)
        self.client = self.node.create_client(Query, 'infinitevl_node/query')
        self.request = Query.Request(question=QUESTION)
        self.status: dict[str, str] = {}
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def spin_until(self, condition, seconds: float, process: subprocess.Popen) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline and process.poll() is None:
            self.executor.spin_once(timeout_sec=0.02)
        return condition()

    def ask(self, process: subprocess.Popen) -> tuple[float, object]:
        """Seconds to the reply, and the reply; None when none came."""
        began = time.monotonic()
        future = self.client.call_async(self.request)
        self.spin_until(future.done, 60.0, process)
        return time.monotonic() - began, future.result() if future.done() else None

    def _on_status(self, message) -> None:
        for status in message.status:
            self.status |= {item.key: item.value for item in status.values}


def measure(options: argparse.Namespace, model: Path) -> dict:
    command = [sys.executable, str(options.node), '--ros-args']
    command += ['--params-file', str(options.params_file)]
    # What stands on the command line goes before the file's.
    for setting in [f'model:={model}', *options.set]:
        command += ['-p', setting]
    began = time.monotonic()
    with child_process(command) as node:
        user = User()
        if not user.spin_until(lambda: user.status.get('state') == 'active', START_TIMEOUT, node):
            raise RuntimeError('the node did not start; its messages are above')
        start = time.monotonic() - began
        arguments = ['--camera', '--rate', str(options.rate), '--seconds', str(options.seconds)]
        with child_process([sys.executable, str(CAMERA), *arguments]) as camera:
            user.spin_until(
                lambda: int(user.status.get('frames_taken', 0)) > 0, START_TIMEOUT, node
            )
            answers, failures = [], []
            while camera.poll() is None and node.poll() is None:
                seconds, reply = user.ask(node)
                if reply is None or not reply.success:
                    failures.append(reply.message if reply else 'no reply')
                else:
                    answers.append((seconds, reply.tokens))
        # Diagnostics come once a second: the second one from now tells of every frame.
        after = time.monotonic() + 2.2
        user.spin_until(lambda: time.monotonic() > after, 5.0, node)
        alive = node.poll() is None
    if not answers:
        raise RuntimeError(f'no question was answered: {failures[:3]}')
    counts = ('frames_received', 'frames_taken', 'frames_dropped', 'frames_failed')
    return {
        'date': date.today().isoformat(),
        'hardware': torch.cuda.get_device_name(),
        'torch': torch.__version__,
        'parameters': options.params_file.name,
        'set': options.set,
        'camera': f'1280x720 rgb8 at {options.rate:g} Hz',
        'start_s': round(start, 1),
        'frames_sent': round(options.seconds * options.rate),
        **{name: int(user.status[name]) for name in counts},
        'frame_ms': float(user.status['frame_ms']),
        'gpu_memory_bytes': int(user.status['gpu_memory_bytes']),
        'answers': len(answers),
        'answers_failed': failures,
        'answer_ms': summary([1000 * seconds for seconds, _ in answers]),
        'tokens_per_answer': max(tokens for _, tokens in answers),
        'node_alive': alive,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--params-file', type=Path, default=Path('config/gpu.yaml'))
    parser.add_argument('--model', type=Path, help='checkpoint folder (default: random weights)')
    parser.add_argument('--set', action='append', default=[], help='a parameter, NAME:=VALUE')
    parser.add_argument('--node', type=Path, default=Path('scripts/infinitevl_node'))
    parser.add_argument('--rate', type=float, default=30.0, help='frames a second')
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--json', type=Path, help='write the result to this file')
    options = parser.parse_args()
    os.environ['ROS_DOMAIN_ID'] = str(random.randrange(1, 102))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    with tempfile.TemporaryDirectory() as folder:
        if not options.model:
            write_random_4b(Path(folder))
        result = measure(options, options.model or Path(folder))
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + '\n')
    return 0 if result['node_alive'] else 1


if __name__ == '__main__':
    sys.exit(main())
