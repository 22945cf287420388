"""Which frames a live camera would have lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinitevl_ros.replay.pace import Pace


def dropped(rate, seconds):
    pace = Pace()
    for number, each in enumerate(seconds):
        pace.add(number / rate, each)
    return pace.dropped


@pytest.mark.parametrize(
    ('seconds', 'wanted'),
    [
        ([0.9] * 10, 0),
        # One is taken at 0, 2.4, 4.8 and 7.2, the newest by then; the last one still waits.
        ([2.4] * 10, 5),
        # Three seconds at first: frames 1 and 2 are overtaken by 3, which is taken at 3.1.
        ([3.1, *[0.5] * 9], 2),
        ([100.0, *[0.1] * 9], 8),
    ],
)
def test_the_newest_waits_and_others_are_dropped(seconds, wanted):
    assert dropped(1.0, seconds) == wanted


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=50), st.floats(0.5, 60))
def test_whoever_keeps_up_drops_nothing_and_nobody_drops_the_first_or_last(seconds, rate):
    lost = dropped(rate, seconds)
    assert 0 <= lost <= max(0, len(seconds) - 2)
    if max(seconds) <= 0.999 / rate:
        assert lost == 0
