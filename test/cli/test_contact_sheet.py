import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from infinitevl_ros.cli.contact_sheet import (
    GAP,
    MARGIN,
    PAPER,
    WIDTH,
    Answer,
    Frame,
    contact_sheet,
    drawable,
    font,
    wrap,
)

NOISE = 'W' * 500 + ' \n\t\x00\x07\x1b[31m \ufffd\ud800 😀👩‍🚀 日本語 שלום é ' + 'word ' * 300


def frames(count, shape=(24, 32), caption='a red box on the left'):
    return [Frame(0.5 * index, solid(shape, (90, 120, 150)), caption) for index in range(count)]


def solid(shape, colour):
    return np.full((*shape, 3), colour, np.uint8)


def sheet(path, *arguments):
    """Writes a sheet and reads it back: [H, W, 3] uint8."""
    contact_sheet(path / 'sheet.png', *arguments)
    with Image.open(path / 'sheet.png') as picture:
        assert picture.format == 'PNG'
        return np.asarray(picture.convert('RGB'))


def has_colour(picture, colour):
    return (np.abs(picture.astype(int) - colour).max(axis=2) < 3).sum() > 100


@pytest.mark.parametrize('count', [0, 1, 2, 5, 6, 7, 12, 13, 24])
def test_any_number_of_frames_makes_a_sheet(tmp_path, count):
    picture = sheet(tmp_path, 'Title', 'Subtitle', frames(count), [Answer('Where?', 'Here.', 0.5)])
    assert picture.shape[1] == WIDTH


def test_of_many_frames_24_in_time_order_are_shown_with_the_first_and_the_last(tmp_path):
    many = frames(100)
    many[0] = Frame(0.0, solid((24, 32), (255, 0, 0)), 'first')
    many[-1] = Frame(99.0, solid((24, 32), (0, 0, 255)), 'last')
    picture = sheet(tmp_path, 'Title', '', many[::-1], [])
    assert picture.shape == sheet(tmp_path, 'Title', '', frames(24), []).shape
    top, bottom = np.array_split(picture, 2)
    assert has_colour(top[:, : WIDTH // 2], (255, 0, 0))
    assert has_colour(bottom[:, WIDTH // 2 :], (0, 0, 255))


@pytest.mark.parametrize('shape', [(1, 1), (480, 640), (90, 160), (224, 224), (300, 2), (2, 300)])
def test_any_shape_of_frame_fits(tmp_path, shape):
    mixed = frames(1, shape) + frames(2)
    picture = sheet(tmp_path, 'Title', 'Subtitle', mixed, [])
    assert picture.shape[0] < WIDTH


@pytest.mark.parametrize('count', [3, 8, 24])
def test_nothing_leaves_its_card(tmp_path, count):
    picture = sheet(tmp_path, '', '', frames(count, caption=NOISE), [])
    columns = {3: 3, 8: 4, 24: 6}[count]
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    between = np.ones(WIDTH, bool)
    for column in range(columns):
        left = MARGIN + column * (width + GAP)
        between[left : left + width] = False
    assert between.sum() == 2 * MARGIN + (columns - 1) * GAP
    assert (picture[:, between] == ImageColor.getrgb(PAPER)).all()


def test_long_questions_and_answers_stay_on_their_card(tmp_path):
    picture = sheet(tmp_path, NOISE, NOISE, [], [Answer(NOISE, NOISE, 1e30)])
    paper = ImageColor.getrgb(PAPER)
    assert (picture[:, :MARGIN] == paper).all()
    # The ink of a letter may reach a pixel further than its advance.
    assert (picture[:, 2 - MARGIN :] == paper).all()


def test_the_input_is_left_as_it_was(tmp_path):
    given_frames = frames(3)[::-1]
    times = [frame.seconds for frame in given_frames]
    sheet(tmp_path, 'Title', '', given_frames, [])
    assert [frame.seconds for frame in given_frames] == times


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(max_size=200),
    seconds=st.floats(),
)
def test_any_text_makes_a_sheet(tmp_path, text, seconds):
    answers = [Answer(text, text, seconds)]
    sheet(tmp_path, text, text, [Frame(seconds, solid((8, 8), (0, 0, 0)), text)], answers)


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(st.text(max_size=300), st.text('ab W\n', max_size=300)),
    width=st.integers(60, 400),
    most=st.integers(1, 4),
)
def test_lines_are_never_too_wide_or_too_many_and_say_what_was_cut(text, width, most):
    lines = wrap(text, 14, width, most)
    assert 1 <= len(lines) <= most
    assert all(font(14).getlength(line) <= width for line in lines)
    shown, whole = ''.join(lines).replace(' ', ''), drawable(text).replace(' ', '')
    assert shown == whole or (shown[-1] == '…' and whole.startswith(shown[:-1]))


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('a red box', 'a red box'),
        ('café \u2013 naïve', 'cafe - naive'),
        ('line\none\r\n\ttwo', 'line one two'),
        ('bell\x07 and \x1b[0m', 'bell and [0m'),
        ('日本語 😀', '\ufffd \ufffd'),
        ('half a \ud800 pair', 'half a  pair'),
        ('', ''),
    ],
)
def test_text_is_shown_as_the_font_can(text, shown):
    assert drawable(text) == shown
