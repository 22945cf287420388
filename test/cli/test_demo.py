"""The demo as a person runs it."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from infinitevl_ros.cli.camera import video_frames
from infinitevl_ros.cli.main import main
from infinitevl_ros.media.source import SourceError
from infinitevl_ros.world.scene import ROOMS


def infinitevl(*arguments, **options):
    code = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    command = [sys.executable, '-c', code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, **options)


def demo(tmp_path, *arguments):
    result = infinitevl('demo', '--json', 'demo.json', *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((tmp_path / 'demo.json').read_text())
    picture = Image.open(tmp_path / 'demo.png')
    assert picture.width > 1000
    assert len(np.unique(np.asarray(picture))) > 50
    assert report['frames_taken'] + report['frames_dropped'] == report['frames_sent']
    assert report['frames_taken'] >= 0.8 * report['frames_sent']
    assert report['memory_bytes_start'] == report['memory_bytes_end'] > 0
    fields = {'question', 'answer', 'truth', 'evidence_age', 'seconds'}
    for answer in report['answers']:
        assert set(answer) == fields
        assert answer['answer'] not in ('', '(no reply)')
        assert f'? {answer["question"]}' in result.stdout
        assert 0 < answer['seconds'] < 60
    stamps = [caption['stamp'] for caption in report['captions']]
    assert stamps == sorted(stamps)
    assert len(stamps) >= 2
    return result, report


def test_a_rendered_patrol(tmp_path):
    result, report = demo(tmp_path, '--seconds', '7')
    assert report['frames_sent'] == 105
    assert report['fps'] > 12
    answers = report['answers']
    assert len(answers) == 10
    right = [answer['answer'] == answer['truth'] for answer in answers]
    assert f'{sum(right)} of 10 right' in result.stdout
    # What the model gets right is tested frame by frame in test/engine/test_tiny.py: here frames
    # come in real time, and which one a question meets is chance.
    assert {answers[0]['answer'], answers[0]['truth']} <= set(ROOMS)
    # Things of the first rooms, which were left long before the window of about a second.
    assert max(answer['evidence_age'] or 0 for answer in answers) > 4
    assert all(answer['seconds'] < 1.5 for answer in answers)


def test_a_video_file(tmp_path, checkpoint):
    """Played once to its end, however long one would look."""
    writer = cv2.VideoWriter(
        str(tmp_path / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 12, (160, 120)
    )
    for i in range(36):
        writer.write(np.full((120, 160, 3), 4 * i, np.uint8))
    writer.release()
    arguments = ('--video', 'in.avi', '--seconds', '100', '--model', checkpoint)
    _, report = demo(tmp_path, *arguments)
    assert len(report['answers']) == 3
    assert {answer['truth'] for answer in report['answers']} == {None}
    assert report['frames_sent'] == 36
    assert 11 < report['fps'] < 12.5


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--video', 'none.mp4'], 'none.mp4: no such file'),
        (['--video', 'text.mp4'], 'text.mp4: not a video'),
        (['--seconds', '-1'], '--seconds is -1.0, expected more than 0'),
        (['--seconds', '0'], '--seconds is 0.0, expected more than 0'),
        (['--seconds', 'nan'], '--seconds is nan, expected more than 0'),
        (['--json', 'nowhere/demo.json'], 'nowhere/demo.json: no such folder'),
    ],
)
def test_input_at_fault_is_said_in_one_line(tmp_path, arguments, said):
    (tmp_path / 'text.mp4').write_text('not a video')
    result = infinitevl('demo', *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f'infinitevl demo: {said}')
    assert 'Traceback' not in result.stderr


def test_a_broken_model_ends_the_demo_with_the_nodes_reason(tmp_path):
    result = infinitevl('demo', '--model', tmp_path, cwd=tmp_path)
    assert result.returncode == 1
    assert 'config.json: missing' in result.stderr
    assert 'the node did not start' in result.stderr


def test_video_frames_are_rgb(tmp_path):
    path = tmp_path / 'red.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), (0, 0, 200), np.uint8))
    writer.release()
    rate, frames = video_frames(path)
    frames = list(frames)
    assert (rate, len(frames), frames[0].shape) == (10, 3, (48, 64, 3))
    assert frames[0][..., 0].min() > 150 > 60 > frames[0][..., 2].max()
    with pytest.raises(SourceError, match='no such file'):
        video_frames(tmp_path / 'nothing.avi')
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(SourceError, match=r'a\.png: images, expected a video'):
        video_frames(tmp_path / 'a.png')


def test_random_checkpoints_are_seeded(tmp_path, capsys):
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        assert main(['random-checkpoint', str(tmp_path / name), '--seed', str(seed)]) == 0
    assert capsys.readouterr().out.count('noise') == 3
    files = {name: (tmp_path / name / 'model.safetensors').read_bytes() for name in 'abc'}
    assert files['a'] == files['b'] != files['c']


def test_help_does_not_load_torch(tmp_path):
    (tmp_path / 'torch.py').write_text('raise SystemExit("torch was imported")')
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}:{os.environ["PYTHONPATH"]}'}
    result = infinitevl('--help', env=environment)
    assert result.returncode == 0, result.stderr
    for command in ('demo', 'verify', 'random-checkpoint'):
        assert command in result.stdout
