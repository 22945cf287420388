"""A scheduler at work, for its tests."""

import queue

import numpy as np

from infinitevl_ros.engine import Sampling, Scheduler

FRAME = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
LONG = Sampling(max_tokens=4000)


class Stream:
    """A scheduler with one memory, and what it reported."""

    def __init__(self, engine, **options):
        self.engine = engine
        self.taken, self.errors = queue.Queue(), queue.Queue()
        self.scheduler = Scheduler(
            engine,
            on_frame=lambda memory: self.taken.put(memory.newest_stamp),
            on_frame_error=lambda memory, error: self.errors.put(error),
            **options,
        )
        self.memory = engine.new_memory()
        self.stamp = 0

    def frame(self, source=FRAME):
        self.stamp += 1
        self.scheduler.offer(self.memory, source, self.stamp)
        return self.stamp

    def take(self, source=FRAME):
        stamp = self.frame(source)
        while self.taken.get(timeout=10) != stamp:
            pass

    def ask(self, question='what?', **options):
        done = queue.Queue()
        ticket = self.scheduler.ask(self.memory, question, done.put, **options)
        return ticket, done

    @property
    def counts(self):
        return self.scheduler.counts(self.memory)
