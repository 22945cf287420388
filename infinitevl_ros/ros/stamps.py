"""Stamps: nanoseconds inside, builtin_interfaces/Time outside."""

from __future__ import annotations

from builtin_interfaces.msg import Time

from ..engine.schedule import JUMP, NANOSECONDS, Schedule

__all__ = ['JUMP', 'NANOSECONDS', 'Schedule', 'message', 'nanoseconds']


def nanoseconds(stamp: Time) -> int:
    return stamp.sec * NANOSECONDS + stamp.nanosec


def message(stamp: int | None) -> Time:
    """The message of a stamp in nanoseconds; zero when there is none."""
    sec, nanosec = divmod(stamp or 0, NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)
