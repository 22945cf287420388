"""`infinitevl ask`, `caption`, `check` and `to-bag` as a person runs them."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from infinitevl_ros.cli.ask import Printer
from infinitevl_ros.cli.main import COMMANDS, main
from infinitevl_ros.media.source import open_source
from infinitevl_ros.world.patrol import story

QUESTIONS = """
questions:
  - {ask: 'Is the light on?', at: 1, expect: {any: ['yes', 'no']}}
  - {ask: 'Which room is this?', expect: a zebra}
"""


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('patrol') / 'patrol.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 15, (112, 112))
    for pixels, _ in story(seed=2**32 + 7, frames=45, size=112):
        writer.write(pixels[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def command(capsys):
    def command(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse's own
            code = exit.code
        return code, *capsys.readouterr()

    return command


def test_ask_a_video_at_several_times(command, video, tmp_path):
    code, out, err = command(
        'ask', video, 'Is the light on?', '--at', '1', 'Which room is this?', '--json',
        tmp_path / 'r.json',
    )  # fmt: skip
    assert code == 0, err
    assert 'its words are guesses' in err.replace('\n', ' ')
    first, second = re.findall(r'\? (.*)\n= (.*)  \[at (.*) s, (\d+) frames', out)
    assert first == ('Is the light on?', 'yes', '1.0', '16')
    assert (second[0], *second[2:]) == ('Which room is this?', '2.9', '45')
    record = json.loads((tmp_path / 'r.json').read_text())
    assert [answer['text'] for answer in record['answers']] == [first[1], second[1]]
    assert len(record['frames']) == 45
    streamed = command('ask', video, '--stream', 'Is the light on?', '--at', '1')[1]
    assert streamed.startswith('? Is the light on?\n= yes  [at 1.0 s, 16 frames')


def test_one_question_is_asked_at_every_time(command, video):
    out = command('ask', video, 'Is the light on?', '--at', '2', '--at', '1')[1]
    assert re.findall(r'\? (.*)\n= .*  \[at (.*) s, (\d+) frames', out) == [
        ('Is the light on?', '1.0', '16'),
        ('Is the light on?', '2.0', '31'),
    ]


def test_ask_images(command, video, tmp_path):
    first = next(iter(open_source(video))).pixels
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), first[..., ::-1])
    code, out, _ = command('ask', tmp_path / 'a.png', tmp_path / 'b.png', 'Is the light on?')
    assert code == 0
    assert out.startswith('? Is the light on?\n= yes  [at 0.0 s, 2 frames')
    code, _, err = command('ask', tmp_path / 'a.png', 'Is the light on?', '--at', '1')
    assert code == 2
    assert 'images have no times' in err


def test_ask_for_json_and_by_a_file_of_questions(command, video, tmp_path):
    schema = {
        'type': 'object',
        'properties': {'n': {'type': 'integer', 'minimum': 0, 'maximum': 9}},
    }
    schema |= {'required': ['n'], 'additionalProperties': False}
    (tmp_path / 's.json').write_text(json.dumps(schema))
    code, out, _ = command('ask', video, 'How many rooms?', '--json-schema', tmp_path / 's.json')
    assert code == 0
    assert json.loads(re.search(r'= (.*)  \[', out)[1])['n'] in range(10)
    cut = command(
        'ask', video, 'How many rooms?', '--json-schema', tmp_path / 's.json', '--max-tokens', '3'
    )
    assert cut[0] == 1
    assert 'the JSON is longer than max_tokens' in cut[2]
    (tmp_path / 'q.yaml').write_text(QUESTIONS)
    code, out, _ = command('ask', video, '--questions', tmp_path / 'q.yaml')
    assert (code, out.count('? ')) == (0, 2)


def test_json_on_standard_output_is_alone_there(command, video, tmp_path):
    (tmp_path / 'q.yaml').write_text(QUESTIONS)
    for arguments in (
        ('ask', video, 'Is the light on?'),
        ('caption', video, '--every', '1'),
        ('check', video, '--questions', tmp_path / 'q.yaml', '--threshold', '0'),
    ):
        code, out, err = command(*arguments, '--json', '-')
        assert code == 0, err
        record = json.loads(out)
        assert len(record['frames']) == 45
        for text in (*record['answers'], *record['captions']):
            assert text['text'] in err


def test_ctrl_c_leaves_what_was_answered(tmp_path):
    path = tmp_path / 'long.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 15, (112, 112))
    (pixels, _), *_ = story(seed=2**32 + 7, frames=12, size=112)
    for _ in range(20_000):
        writer.write(pixels)
    writer.release()
    code = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    words = 'ask', path, 'Is the light on?', '--at', '1', 'Which room?', '--json', 'r.json'
    process = subprocess.Popen(
        [sys.executable, '-c', code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    said = process.stdout.readline(), process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert 'Traceback' not in err
    assert said[0] == '? Is the light on?\n'
    assert said[1].startswith('= yes  [at 1.0 s')
    record = json.loads((tmp_path / 'r.json').read_text())
    assert [answer['at'] for answer in record['answers']] == [1.0]
    assert 16 <= len(record['frames']) < 20_000


def test_captions_in_every_format(command, video, tmp_path):
    code, plain, _ = command('caption', video, '--every', '1')
    assert code == 0
    lines = plain.splitlines()
    assert [line.split()[0] for line in lines] == ['1.0', '2.0']
    code, out, _ = command(
        'caption', video, '--every', '1', '--format', 'srt', '-o', tmp_path / 'c.srt'
    )
    assert (code, out) == (0, '')
    subtitles = (tmp_path / 'c.srt').read_text()
    assert subtitles.startswith('1\n00:00:00,000 --> 00:00:01,000\n')
    assert '\n\n2\n00:00:01,000 --> 00:00:02,000\n' in subtitles
    code, out, _ = command('caption', video, '--every', '1', '--format', 'jsonl')
    values = [json.loads(line) for line in out.splitlines()]
    assert [value['to'] for value in values] == [1.0, 2.0]
    assert values[0]['text'] in lines[0]
    code, out, err = command('caption', video, '--every', '60')
    assert (code, out) == (0, '')
    assert 'no caption: the stream of 45 frames is shorter than --every 60 s' in err


def test_check_says_whether_enough_is_right(command, video, tmp_path):
    (tmp_path / 'q.yaml').write_text(QUESTIONS)
    code, out, err = command('check', video, '--questions', tmp_path / 'q.yaml')
    assert code == 1
    assert '1 of 2 right' in out
    assert 'under the threshold of 1' in err
    result = command('check', video, '--questions', tmp_path / 'q.yaml', '--threshold', '0.5')
    assert result[0] == 0


def test_a_video_becomes_a_bag(command, video, tmp_path):
    for bag in ('folder', 'lone.mcap'):
        code, out, err = command(
            'to-bag', video, tmp_path / bag, '--topic', '/camera', '--start', '1000'
        )
        assert (code, err) == (0, '')
        assert out == f'Wrote 45 images to {tmp_path / bag}.\n'
        source = open_source(tmp_path / bag)
        assert source.topic == '/camera'
        stamps = [shot.stamp for shot in source]
        assert stamps[0] == 1000 * 10**9
        assert stamps[15] == 1001 * 10**9
        code, _, err = command('to-bag', video, tmp_path / bag)
        assert code == 2
        assert 'is there already' in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder', 'lone.mcap']


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['ask', 'none.mp4', 'What?'], 'none.mp4: no such file'),
        (['ask', 'VIDEO'], 'expected a question behind the file'),
        (['ask', 'VIDEO', 'other.png', 'What?'], 'other.png: no such file'),
        (['ask', 'VIDEO', 'VIDEO', 'What?'], 'one video or bag at a time'),
        (['ask', 'VIDEO', 'my video.mp4', 'What?'], 'my video.mp4: no such file'),
        (['ask', 'VIDEO', 'lost/frames', 'What?'], 'lost/frames: no such file'),
        (['ask', 'VIDEO', 'What?', 'other.png'], 'other.png: expected a question; files come'),
        (['ask', 'VIDEO', 'What?', '--json', 'no/r.json'], 'no/r.json: no such folder'),
        (['caption', 'VIDEO', '-o', 'no/c.srt'], 'no/c.srt: no such folder'),
        (['ask', 'VIDEO', '--at', '1'], '--at is given 1 times for 0'),
        (
            ['ask', 'VIDEO', 'What?', 'Who?', '--at', '1', '--at', '2', '--at', '3'],
            '3 times for 2',
        ),
        (['ask', 'VIDEO', 'What?', '--at', '-1'], '--at takes seconds'),
        (['ask', 'VIDEO', 'What?', '--at', 'inf'], '--at takes seconds'),
        (['ask', 'VIDEO', 'What?', '--json-schema', '{}'], '--json-schema takes a file: '),
        (['ask', 'VIDEO', 'What?', '--json', '.'], 'a folder, expected the name of a file'),
        (['to-bag', 'VIDEO', 'bag', '--topic', 'bad topic'], '--topic is "bad topic"'),
        (['to-bag', 'VIDEO', 'bag', '--topic', ''], '--topic is ""'),
        (['to-bag', 'VIDEO', 'bag.db3'], 'expected a folder, or a file in .mcap'),
        (['to-bag', 'VIDEO', 'VIDEO', '--force'], 'expected a folder, or a file in .mcap'),
        (['bench', '--shape', 'small', '--random-weights', '--frames', '1'], '--frames is 1'),
        (['bench', '--shape', 'small', '--random-weights', '--json', 'no/b'], 'no such folder'),
        (['ask', 'VIDEO', 'What?', '--temperature', '-1'], 'temperature is -1.0'),
        (['ask', 'VIDEO', 'What?', '--model', 'nowhere'], 'nowhere: no such checkpoint folder'),
        (['ask', 'VIDEO', 'What?', '--topic', '/i'], 'not a bag'),
        (['ask', 'VIDEO', 'What?', '--questions', 'q.yaml'], 'q.yaml: No such file'),
        (['caption', 'VIDEO', '--every', '0'], '--every is 0.0'),
        (['caption', 'none.mcap'], 'none.mcap: no such file'),
        (['check', 'VIDEO', '--questions', 'q.yaml'], 'q.yaml: No such file'),
        (['to-bag', 'VIDEO', 'bag', '--start', '-5'], '--start is -5.0'),
        (['to-bag', 'none.mp4', 'bag'], 'none.mp4: no such file'),
    ],
)
def test_input_at_fault_is_one_line(command, video, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    arguments = [video if argument == 'VIDEO' else argument for argument in arguments]
    code, _, err = command(*arguments)
    assert code == 2
    assert said in err
    assert 'Traceback' not in err


def test_every_command_explains_itself(command):
    from infinitevl_ros.cli.main import COMMANDS

    for name in COMMANDS:
        code, out, _ = command(name, '--help')
        assert code == 0
        assert out.startswith(f'usage: infinitevl {name}')


def test_what_is_read_is_not_written_over(command, video, tmp_path):
    copy, questions = tmp_path / 'v.avi', tmp_path / 'q.yaml'
    copy.write_bytes(video.read_bytes())
    questions.write_text(QUESTIONS)
    for arguments in (
        ('caption', copy, '-o', copy),
        ('ask', copy, 'What?', '--json', copy),
        ('report', copy, '-o', copy),
        ('report', copy, '--questions', questions, '-o', questions),
        ('check', copy, '--questions', questions, '--json', tmp_path / '.' / 'q.yaml'),
        ('to-bag', copy, tmp_path / 'bag', '--json', copy),
    ):
        code, _, err = command(*arguments)
        assert (code, 'is read, and would be overwritten' in err) == (2, True), arguments
    assert copy.read_bytes() == video.read_bytes()
    assert questions.read_text() == QUESTIONS


def test_a_call_that_is_refused_leaves_its_output_as_it_was(command, video, tmp_path):
    (tmp_path / 'c.srt').write_text('old')
    assert command('caption', video, '-o', tmp_path / 'c.srt', '--max-tokens', '0')[0] == 2
    assert (tmp_path / 'c.srt').read_text() == 'old'
    assert command('caption', video, '-o', tmp_path / 'c.srt', '--every', '60')[0] == 0
    assert (tmp_path / 'c.srt').read_text() == ''


def test_a_reader_that_has_enough_is_no_error(video):
    code = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    process = subprocess.Popen(
        [sys.executable, '-c', code, 'caption', str(video), '--every', '0.1'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 0
    assert 'pipe' not in errors


def test_a_bag_and_its_json_on_standard_output(command, video, tmp_path):
    code, out, err = command('to-bag', video, tmp_path / 'bag', '--json', '-')
    assert code == 0
    assert json.loads(out)['images'] == 45
    assert 'Wrote 45 images' in err


def test_a_checkpoint_that_is_there_is_not_written_over(command, tmp_path):
    assert command('random-checkpoint', tmp_path / 'model')[0] == 0
    code, _, err = command('random-checkpoint', tmp_path / 'model', '--seed', '1')
    assert (code, 'a checkpoint is there already' in err) == (2, True)
    assert command('random-checkpoint', tmp_path / 'model', '--force')[0] == 0
    code, out, err = command('random-checkpoint', tmp_path / 'other', '--json', '-')
    assert (code, json.loads(out)) == (0, {'folder': str(tmp_path / 'other'), 'seed': 0})
    assert 'random weights' in err


def test_every_command_but_live_has_json(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, *(['show'] if name == 'memory' else []), '--help'])
        assert ('--json' in capsys.readouterr().out) == (name != 'live'), name


def test_the_version_is_the_packages(capsys, command, video):
    with pytest.raises(SystemExit):
        main(['--version'])
    text = (Path(__file__).parents[2] / 'package.xml').read_text()
    assert f'<version>{capsys.readouterr().out.strip()}</version>' in text
    record = json.loads(command('ask', video, 'Is the light on?', '--at', '1', '--json', '-')[1])
    assert f'<version>{record["versions"]["infinitevl_ros"]}</version>' in text
    assert {'python', 'torch', 'rosbags'} <= record['versions'].keys()


def test_an_answer_is_printed_as_it_comes(command, video, monkeypatch):
    """Each piece is written by itself, before the next is known."""
    written = []
    monkeypatch.setattr(Printer, 'piece', lambda self, question, text: written.append(text))
    record = command('ask', video, 'What do you see?', '--stream', '--at', '1', '--json', '-')[1]
    assert len(written) > 2
    assert ''.join(written) == json.loads(record)['answers'][0]['text']


def test_a_schema_is_for_the_questions_of_a_file_too(command, video, tmp_path):
    (tmp_path / 's.json').write_text('{"type": "boolean"}')
    (tmp_path / 'q.yaml').write_text('questions: [{ask: "Is the light on?"}]')
    words = '--questions', tmp_path / 'q.yaml', '--json-schema', tmp_path / 's.json'
    code, out, _ = command('ask', video, *words)
    assert code == 0
    assert re.search(r'= (.*)  \[', out)[1] in ('true', 'false')


def test_what_a_file_says_cannot_steer_the_terminal(command, tmp_path):
    name = tmp_path / 'a\x1b[2Jb.mp4'
    for arguments in (('ask', name, 'What?'), ('caption', name)):
        code, _, err = command(*arguments)
        assert code == 2
        assert '\x1b' not in err
