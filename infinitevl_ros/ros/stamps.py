"""Stamps: integers in nanoseconds inside, builtin_interfaces/Time outside."""

from __future__ import annotations

from builtin_interfaces.msg import Time

NANOSECONDS = 1_000_000_000


def nanoseconds(stamp: Time) -> int:
    return stamp.sec * NANOSECONDS + stamp.nanosec


def message(stamp: int | None) -> Time:
    """The message of a stamp in nanoseconds; zero when there is none."""
    sec, nanosec = divmod(stamp or 0, NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)
