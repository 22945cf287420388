"""`infinitevl report` as a person runs it."""

import json

import cv2
import pytest

from infinitevl_ros.cli.main import main
from infinitevl_ros.world.patrol import story

QUESTIONS = """
threshold: 0.5
questions:
  - {ask: 'Is the light on?', at: 1, expect: {any: ['yes', 'no']}}
  - {ask: 'Which room is this?', expect: a zebra}
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A video and questions about it."""
    folder = tmp_path_factory.mktemp('patrol')
    writer = cv2.VideoWriter(
        str(folder / 'patrol.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 15, (112, 112)
    )
    for pixels, _ in story(seed=2**32 + 7, frames=45, size=112):
        writer.write(pixels[..., ::-1])
    writer.release()
    (folder / 'questions.yaml').write_text(QUESTIONS)
    return folder


@pytest.fixture
def report(folder, capsys):
    def report(*arguments):
        video, page = folder / 'patrol.avi', folder / 'report.html'
        page.unlink(missing_ok=True)
        code = main(['report', str(video), '-o', str(page), *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err, page.read_text('utf-8') if page.exists() else ''

    return report


def test_captions_answers_and_pictures_are_on_the_page(report, folder):
    json_file = folder / 'report.json'
    questions = folder / 'questions.yaml'
    code, out, _, page = report('--questions', questions, '--every', '1', '--json', json_file)
    assert code == 0
    assert out == f'Wrote {folder / "report.html"}\n1 of 2 right\n'
    record = json.loads(json_file.read_text())
    assert len(record['frames']) == 45
    assert len(record['captions']) == 2
    for text in (one['text'] for one in record['captions'] + record['answers']):
        assert f'<bdi>{text}</bdi>' in page
    for event in record['captions'] + record['answers']:
        assert f'id="at{event["stamp"]}"' in page
    assert '✓ 50%, 50% needed' in page


def test_too_few_right_answers_are_exit_code_1_and_a_page(report, folder):
    code, _, _, page = report('--questions', folder / 'questions.yaml', '--threshold', '0.9')
    assert code == 1
    assert '✗ 50%, 90% needed' in page


def test_without_questions_there_are_captions_alone(report):
    code, out, _, page = report('--every', '0.5')
    assert code == 0
    assert 'right' not in out
    assert '<ol class="captions">' in page
    assert '<ol class="answers">' not in page
    assert '<ol class="captions">' not in report('--every', '0')[3]


def test_json_on_standard_output_stands_there_alone(report):
    _, out, err, _ = report('--json', '-')
    assert len(json.loads(out)['frames']) == 45
    assert 'Wrote' in err


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (('-o', 'no/such/folder/r.html'), 'no such folder to write to'),
        (('-o', '.'), 'a folder, expected the name of a file'),
        (('--threshold', '2'), '--threshold is 2.0, expected 0 to 1'),
        (('--every', '-1'), '--every is -1.0, expected 0 or more'),
        (('--every', 'nan'), '--every is nan, expected 0 or more'),
        (('--topic', '/camera'), 'not a bag'),
    ],
)
def test_what_is_wrong_is_told_in_a_line(report, arguments, reason):
    code, _, err, page = report(*arguments)
    assert code == 2
    assert reason in err
    assert err.count('\n') == 1
    assert page == ''
