"""The report of a run, as a browser shows it."""

import re

import numpy as np
import pytest
from browser import browser, complaints, requested

from infinitevl_ros.media.source import Shot
from infinitevl_ros.replay.charts import (
    clock,
    duration,
    size,
    thin,
    time_ticks,
    value_ticks,
)
from infinitevl_ros.replay.record import Answered, Record, Said, Taken
from infinitevl_ros.replay.report import write_report
from infinitevl_ros.replay.thumbnails import Thumbnails

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
HOSTILE = (
    '<script>document.title = "owned"</script>',
    '"><img src=http://127.0.0.1:1/x onerror=alert(1)>',
    "' onload='alert(1)",
    '</style></title></bdi></li></section><h1>owned</h1>',
    '&lt;b&gt; &amp;amp; \u202eback to front\u202c',
    'W' * 400,
    'mañana 日本語 שלום 😀',
)


def frames(count, rate=15.0, seconds=0.02, memory=1_163_304):
    return [Taken(START + round(i * SECOND / rate), seconds, memory) for i in range(count)]


def picture(value=90, shape=(60, 80)):
    return np.full((*shape, 3), value % 256, np.uint8)


def record(**changes):
    """Ten seconds of a stream with two captions and three questions."""
    taken = frames(151)
    answer = {'tokens': 2, 'seconds': 0.12, 'first_token': 0.04, 'finish': 'end'}
    values = {
        'source': 'patrol.mp4',
        'kind': 'video',
        'topic': '',
        'model': 'tiny',
        'device': 'cpu',
        'date': '2026-01-02',
        'versions': {'torch': '2.0'},
        'frames': taken,
        'captions': [
            Said(taken[75].stamp, START, 'a red cup', 0.07, 0.0, 5.0),
            Said(taken[150].stamp, taken[75].stamp, 'a door', 0.07, 5.0, 10.0),
        ],
        'answers': [
            Answered('Where?', 5.0, taken[75].stamp, 'here', frames=76, **answer,
                     expected='here', right=True),
            Answered('When?', 10.0, taken[150].stamp, 'never', frames=151, **answer,
                     expected='now', right=False),
            Answered('Why?', 10.0, taken[150].stamp, '', frames=151, **answer),
        ],
    }  # fmt: skip
    return Record(**values | changes)


def hostile():
    """A record and thumbnails whose every text is out to get the page."""
    taken = frames(40)
    answers = [
        Answered(f'{text}?', 0.1 * i, taken[i].stamp, text, 3, 0.1, 0.05, i + 1, 'length', text,
                 right=i % 2 == 0)
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    captions = [Said(frame.stamp, START, text, 0.1) for frame, text in zip(taken, HOSTILE)]  # noqa: B905
    wild = Record(*HOSTILE[:6], dict(zip(HOSTILE, HOSTILE[::-1], strict=True)), taken)
    wild.captions, wild.answers, wild.warnings = captions, answers, list(HOSTILE)
    return wild, [(frame.stamp, picture(i)) for i, frame in enumerate(taken)]


def page(path, found, thumbnails=(), threshold=None):
    write_report(found, thumbnails, path / 'report.html', threshold)
    return (path / 'report.html').read_text('utf-8')


def plain(text):
    """As a browser gives it back: one kind of space, and one way to write nothing."""
    return ' '.join(text.split())


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('kind', ['ordinary', 'hostile'])
def test_a_browser_shows_all_of_it_and_asks_nobody(tmp_path, kind, width):
    found, thumbnails = record(), [(frame.stamp, picture()) for frame in record().frames[::15]]
    if kind == 'hostile':
        found, thumbnails = hostile()
    path = tmp_path / 'a "b" <c>.html'
    write_report(found, thumbnails, path, threshold=0.5)
    with browser(width, 800) as driver:
        driver.get(path.as_uri())
        text = plain(driver.execute_script('return document.body.innerText'))
        assert [url for url in requested(driver) if not url.startswith('data:')] == [path.as_uri()]
        assert complaints(driver) == []
        assert driver.title == f'{found.source} - infinitevl report'
        for answer in found.answers:
            assert plain(answer.question) in text
            assert plain(answer.text or 'nothing said') in text
            assert f'Expected: {plain(answer.expected)}' in text or not answer.expected
        for words in (*(said.text for said in found.captions), *found.warnings, found.model):
            assert plain(words) in text
        assert [h1.text for h1 in driver.find_elements('tag name', 'h1')] == [found.source]
        # Less than the width by a scroll bar.
        wide, seen = driver.execute_script(
            'const page = document.documentElement; return [page.scrollWidth, page.clientWidth]'
        )
        assert wide == seen <= width
        widths = driver.execute_script('return [...document.images].map(i => i.naturalWidth)')
        assert len(widths) >= 5
        assert all(widths)


def test_each_colour_scheme_can_be_read(tmp_path):
    page(tmp_path, record(warnings=['half of it is missing']))
    # Each text's colour on the first background behind it that is not transparent.
    script = """
        return [...document.querySelectorAll('h1, h2, h3, p, dt, dd, a, b, .key li, .warnings li')]
            .filter(e => e.innerText.trim()).map(e => {
                let back = e;
                while (back.parentElement
                       && /, 0\\)$/.test(getComputedStyle(back).backgroundColor))
                    back = back.parentElement;
                return [e.innerText, getComputedStyle(e).color,
                        getComputedStyle(back).backgroundColor];
            })"""
    papers = set()
    with browser(1280, 800) as driver:
        for scheme in ('light', 'dark'):
            features = [{'name': 'prefers-color-scheme', 'value': scheme}]
            driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': features})
            driver.get((tmp_path / 'report.html').as_uri())
            texts = driver.execute_script(script)
            assert len(texts) > 40
            for text, ink, paper in texts:
                light, dark = sorted(map(luminance, (ink, paper)), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, text, ink, paper)
            papers.add(driver.execute_script('return getComputedStyle(document.body).background'))
    assert len(papers) == 2


def luminance(colour):
    """Of a CSS colour, as WCAG 2 defines it."""
    parts = np.array(re.findall(r'[\d.]+', colour)[:3], float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_marks_and_score_are_words_and_signs(tmp_path):
    html = page(tmp_path, record(), threshold=0.6)
    assert 'Right answers</p><p class="value">1 of 2<' in html
    assert '✗ 50%, 60% needed' in html
    assert re.findall(r'<p class="verdict">(.*)</p>', html) == ['✓ right', '✗ wrong', '']
    assert '✓ 50%, 50% needed' in page(tmp_path, record(), threshold=0.5)


def test_nothing_is_scored_where_nothing_was_expected(tmp_path):
    html = page(tmp_path, record(answers=record().answers[2:]), threshold=1.0)
    assert 'needed' not in html
    assert not re.search('[Rr]ight', re.sub('(?s)<style>.*</style>', '', html))


def test_frames_that_a_camera_would_have_lost_are_told(tmp_path):
    html = page(tmp_path, record(dropped_live=1234))
    assert 'Dropped if live</p><p class="value">1,234</p><p>of 151 frames<' in html


def test_memory_is_told_as_it_was(tmp_path):
    assert '1,163,304 bytes from first to last frame.' in page(tmp_path, record())
    grown = [*frames(10), *(Taken(START + 10 * SECOND, 0.02, 2_000_000) for _ in range(2))]
    html = page(tmp_path, record(frames=grown, captions=[], answers=[]))
    assert '1,163,304 bytes at first, 2,000,000 at last, 2,000,000 at most.' in html
    assert 'from first to last frame' not in html


def test_a_slow_first_frame_does_not_press_the_others_flat(tmp_path):
    taken = frames(200)
    taken[0] = Taken(START, 9.0, 1)
    html = page(tmp_path, record(frames=taken))
    assert 'Longest: 9.00 s at 0:00.0.' in html
    assert 'longer than the plot is high' in html
    (line,) = re.findall(r'<polyline class="each" points="([^"]+)"', html)[:1]
    heights = [float(point.split(',')[1]) for point in line.split()]
    assert heights[0] == 0  # at the upper edge
    assert heights[100] < 80  # well above the lower one
    assert 'longer than the plot' not in page(tmp_path, record())


@pytest.mark.parametrize('count', [0, 1, 2])
def test_a_run_that_was_cut_at_once_makes_a_page(tmp_path, count):
    html = page(tmp_path, record(frames=frames(count), captions=[], answers=[]))
    assert f'{count} frame{"" if count == 1 else "s"}' in html
    assert ('No frame was read.' in html) == (count == 0)
    assert 'nan' not in html


def test_times_are_the_memory_s(tmp_path):
    """A clock that jumps back, or far ahead, counts as no time."""
    stamps = [0, 1, 2, -500, -499, 10**6, 10**6 + 1]
    taken = [Taken(START + stamp * SECOND, 0.02, 1) for stamp in stamps]
    html = page(tmp_path, record(frames=taken), [(frame.stamp, picture()) for frame in taken])
    shown = re.findall(r'alt="Frame at ([^"]+)"', html)
    assert shown == ['0:00.0', '0:01.0', '0:02.0', '0:02.0', '0:03.0', '0:03.0', '0:04.0']


def test_any_length_of_stream_is_a_page_of_bounded_size(tmp_path):
    rng, thumbnails = np.random.default_rng(0), Thumbnails()
    noise = rng.integers(0, 256, (480, 640, 3), np.uint8)
    taken = frames(20_000)
    captions, answers = [], []
    for index, frame in enumerate(taken):
        thumbnails.keep(Shot(frame.stamp, noise))
        if index % 40 == 0:
            captions.append(Said(frame.stamp, frame.stamp, 'a door', 0.1, 0.0, index / 15))
            thumbnails.mark(captions[-1])
        if index % 200 == 0:
            answers += [Answered('?', index / 15, frame.stamp, '!', 1, 0.1, 0.1, 1, 'end')] * 3
            thumbnails.mark(answers[-1])
    pictures = thumbnails.pictures()
    stamps = [stamp for stamp, _ in pictures]
    assert 40 <= len(pictures) <= 60
    assert (stamps[0], stamps[-1]) == (taken[0].stamp, taken[-1].stamp)
    assert np.diff(stamps).max() < (stamps[-1] - stamps[0]) / 8
    assert all(max(pixels.shape) == 240 for _, pixels in pictures)

    every = [(frame.stamp, noise[:90, :120]) for frame in taken[::50]]
    for shown in (pictures, every):
        html = page(tmp_path, record(frames=taken, captions=captions, answers=answers), shown)
        assert 20 <= html.count('<img ') <= 60
        points = re.findall(r'points="([^"]+)"', html)
        assert max(len(line.split()) for line in points) <= 1000
        assert len(html) < 4_000_000


def test_pictures_of_captions_and_answers_are_kept(tmp_path):
    found, thumbnails = record(), Thumbnails()
    for index, frame in enumerate(found.frames):
        thumbnails.keep(Shot(frame.stamp, picture(index)))
        for event in (*found.captions, *found.answers):
            if event.stamp == frame.stamp:
                thumbnails.mark(event)
    kept = dict(thumbnails.pictures())
    for index in (0, 75, 150):
        assert (kept[found.frames[index].stamp] == index).all()
    html = page(tmp_path, found, thumbnails.pictures())
    for answer in found.answers:
        assert f'<li id="at{answer.stamp}">' in html
        assert f'<a href="#at{answer.stamp}">' in html


def test_texts_that_no_file_can_hold_are_replaced(tmp_path):
    html = page(tmp_path, record(source='a\x00b\x1bc\ud800d', warnings=['two\nlines\ttab']))
    assert '<h1><bdi>a�b�c�d</bdi></h1>' in html
    assert 'two\nlines\ttab' in html


def test_thinning_keeps_the_highest_and_the_lowest():
    y = np.random.default_rng(0).random(54_321)
    y[[777, 40_000]] = 5.0, -5.0
    x = np.arange(len(y)) / 15
    thin_x, thin_y = thin(x, y)
    assert 500 <= len(thin_y) <= 1000
    assert (thin_y[thin_x == 777 / 15], thin_y[thin_x == 40_000 / 15]) == (5.0, -5.0)
    assert (np.diff(thin_x) > 0).all()
    assert thin(x[:1000], y[:1000])[1] is not thin_y


def test_numbers_are_written_as_people_read_them():
    times = (0, 7.46, 59.96, 600, 3723.4)
    written = ['0:00.0', '0:07.5', '1:00.0', '10:00.0', '1:02:03.4']
    assert list(map(clock, times)) == written
    waits = (0, 0.00021, 0.0123, 0.456, 0.9996, 1.25, 75.0, 1234.5)
    written = ['0 ms', '0.21 ms', '12.3 ms', '456 ms', '1.00 s', '1.25 s', '75.0 s', '1234 s']
    assert list(map(duration, waits)) == written
    assert list(map(size, (12, 999_600, 1_163_304, 2.5e9))) == [
        '12 bytes',
        '1 MB',
        '1.16 MB',
        '2.5 GB',
    ]


@pytest.mark.parametrize('span', [0.05, 1, 9.9, 61, 3600, 86_400, 3e6])
def test_axes_have_a_few_round_labels(span):
    ticks = time_ticks(0, span)
    assert 1 <= len(ticks) <= 7
    assert ticks[0] == 0
    assert ticks[-1] <= span * (1 + 1e-9)
    ticks = value_ticks(span)
    assert 3 <= len(ticks) <= 6
    assert ticks[-2] < span <= ticks[-1] * (1 + 1e-9)
