"""`infinitevl live` and what it needs beside it, as processes of their own."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
from ament_index_python.packages import get_package_prefix

from infinitevl_ros.cli.demo import child_process
from infinitevl_ros.world.patrol import story

CODE = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
RATE = 15


class Live:
    """`infinitevl live`; `line` is what it prints first, `url` the address in it."""

    def __init__(self, *arguments, port=0):
        command = [sys.executable, '-c', CODE, 'live', *map(str, arguments), '--port', str(port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._errors = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.line = self.process.stdout.readline()
        assert 'http://' in self.line, self.errors
        self.url = self.line.split()[1]
        self.port = int(self.url.rpartition(':')[2])

    def _read(self):
        self._errors += iter(self.process.stderr.readline, '')

    @property
    def errors(self):
        """What it wrote to standard error."""
        if self.process.poll() is not None:
            self._reader.join()
        return ''.join(self._errors)

    def end(self, number=signal.SIGINT):
        """Ends it; returns its exit code and how long that took."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(20)
        return code, time.monotonic() - began


@contextlib.contextmanager
def live(*arguments, **options):
    """A Live that is gone when the block is left."""
    running = Live(*arguments, **options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        print(running.errors)  # pytest shows it with a failure


def started(*command):
    """A process that is interrupted when the block is left."""
    return child_process(list(command), stdout=subprocess.DEVNULL)


def node_command(**parameters):
    node = Path(get_package_prefix('infinitevl_ros')) / 'lib/infinitevl_ros/infinitevl_node'
    flags = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
    return sys.executable, str(node), '--ros-args', '--log-level', 'warn', *flags


def camera_command(subscribers):
    """Publishes a rendered patrol on /image for a minute."""
    module = 'infinitevl_ros.cli.camera'
    arguments = '--seconds', '60', '--subscribers', str(subscribers)
    return sys.executable, '-m', module, *arguments


def patrol_video(path, seconds, seed=4, size=112):
    """Write a rendered patrol as a video; returns the names of the rooms it comes through."""
    patrol = story(seed, seconds * RATE, size)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), RATE, (size, size))
    rooms = set()
    for pixels, view in patrol:
        writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        rooms.add(view.room)
    writer.release()
    return rooms
