"""The doctor as a person runs it: with cameras and a node, and with things broken."""

import array
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rclpy
from ament_index_python.packages import get_package_prefix
from rclpy.qos import QoSProfile, ReliabilityPolicy
from safetensors.torch import load_file, save_file
from sensor_msgs.msg import Image
from std_msgs.msg import String

from infinitevl_ros.cli import checks, device_checks
from infinitevl_ros.cli.checks import OK, PROBLEM, WARNING, Finding, guarded
from infinitevl_ros.cli.doctor import ros
from infinitevl_ros.cli.ros_checks import distribution, profile, settings

PROFILE = Path(get_package_prefix('infinitevl_ros'), 'share/infinitevl_ros/config')
PROFILE /= 'fastdds_large_images.xml'
CODE = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
CAMERAS = {  # topic: reliability, encoding, width, height
    '/front/image': ('RELIABLE', 'rgb8', 160, 120),
    '/rear/image': ('BEST_EFFORT', 'rgb8', 640, 480),
    '/odd/image': ('RELIABLE', '32FC1', 40, 30),
}


def doctor(*arguments, stub=None, **environment):
    """Run it; `stub` is a folder of modules that come before the installed ones."""
    environment = {**os.environ, **environment}
    if stub:
        environment['PYTHONPATH'] = f'{stub}:{environment["PYTHONPATH"]}'
    return subprocess.run(
        [sys.executable, '-c', CODE, 'doctor', *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip


def named(findings, name, text=''):
    """The only finding of this name whose text has this in it."""
    (finding,) = [f for f in findings if f['name'] == name and text in f['found']]
    return finding


@pytest.fixture(scope='module')
def cameras():
    """Publishers of images at 10 Hz, and one of text."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('cameras', context=context)
    text = node.create_publisher(String, '/text', 1)
    images = []
    for topic, (reliability, encoding, width, height) in CAMERAS.items():
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
        step = width * (4 if encoding == '32FC1' else 3)
        message = Image(width=width, height=height, step=step, encoding=encoding)
        message.header.stamp.sec = 5
        message.data = array.array('B', bytes(step * height))
        images.append((node.create_publisher(Image, topic, qos), message))
    stop = threading.Event()

    def publish():
        while not stop.wait(0.1):
            text.publish(String(data='text'))
            for publisher, message in images:
                publisher.publish(message)

    thread = threading.Thread(target=publish)
    thread.start()
    yield
    stop.set()
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture(scope='module')
def running_node(cameras):
    node = Path(get_package_prefix('infinitevl_ros'), 'lib/infinitevl_ros/infinitevl_node')
    process = subprocess.Popen(
        [sys.executable, str(node), '--ros-args', '-p', 'topic:=/nowhere'],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = ''
    while 'the node is active' not in log and (line := process.stderr.readline()):
        log += line
    assert 'the node is active' in log
    reader = threading.Thread(target=process.stderr.read)
    reader.start()
    yield
    process.send_signal(2)
    process.wait(20)
    reader.join()


@pytest.fixture(scope='module')
def report(running_node, tmp_path_factory):
    """One run with everything going on: what was printed, and the JSON."""
    file = tmp_path_factory.mktemp('doctor') / 'doctor.json'
    result = doctor('--json', file)
    assert result.returncode == 1, result.stdout + result.stderr  # of the camera that is odd
    return result.stdout, json.loads(file.read_text())


def test_the_machine_of_the_tests_is_in_order(report):
    _, result = report
    findings = result['findings']
    for name in ('Python', 'packages', 'model', 'memory', 'kernels', 'distribution', 'rclpy'):
        assert named(findings, name)['level'] == OK
    assert named(findings, 'packages')['values'].keys() >= {'numpy', 'torch', 'llguidance'}
    model = named(findings, 'model')['values']
    weights = Path(model['folder']) / 'model.safetensors'
    assert model['parameters'] == sum(t.numel() for t in load_file(weights).values())
    assert model['disk_bytes'] == weights.stat().st_size
    assert model['memory_bytes'] == 1_163_304  # what the node reports of one
    assert named(findings, 'domain')['values']['domain'] == int(os.environ['ROS_DOMAIN_ID'])
    assert 'LOCALHOST' in named(findings, 'discovery')['found']
    interfaces = named(findings, 'interfaces')
    assert interfaces['level'] == OK
    assert 'Watch' in interfaces['found']
    for level in (OK, WARNING, PROBLEM):
        assert result[level] == sum(finding['level'] == level for finding in findings)


def test_cameras_are_listed_with_their_rates(report):
    _, result = report
    front = named(result['findings'], 'image topic', '/front/image')
    assert front['level'] == OK
    assert 4 < front['values']['rate'] < 12
    assert front['values']['qos'] == 'reliable'
    assert front['values']['publishers'] == '/cameras'
    assert (front['values']['width'], front['values']['height']) == (160, 120)
    assert front['values']['bytes'] == 57_600


def test_a_best_effort_camera_with_large_images_is_warned_of(report):
    _, result = report
    rear = named(result['findings'], 'image topic', '/rear/image')
    assert rear['values']['qos'] == 'best effort'
    assert rear['level'] == WARNING
    assert 'FASTRTPS_DEFAULT_PROFILES_FILE=' in rear['fix'] or 'no image came' in rear['found']


def test_an_encoding_that_the_node_refuses_is_a_problem(report):
    _, result = report
    odd = named(result['findings'], 'image topic', '/odd/image')
    assert odd['level'] == PROBLEM
    assert '32FC1' in odd['found']
    assert result[PROBLEM] == 1


def test_a_node_that_hears_no_camera_is_shown_and_its_overlay_is_no_camera(report):
    _, result = report
    engine = named(result['findings'], 'node', 'is active')
    assert engine['level'] == OK
    assert engine['values']['model'] == 'tiny'
    stream = named(result['findings'], 'node', '/nowhere')
    assert stream['level'] == WARNING
    assert '0 publishers' in stream['found']
    assert 'image:=TOPIC' in stream['fix']
    assert 'overlay' not in json.dumps(result)


def test_what_is_printed_fits_100_columns_and_holds_every_finding(report):
    printed, result = report
    assert max(map(len, printed.splitlines())) <= 100
    levels = re.findall(r'^  (ok|warning|problem) ', printed, re.MULTILINE)
    assert levels == [finding['level'] for finding in result['findings']]
    words = ''.join(printed.split())
    for finding in result['findings']:
        assert ''.join(finding['found'].split()) in words
        assert ''.join(finding['fix'].split()) in words
        assert bool(finding['fix']) == (finding['level'] != OK)
    assert printed.splitlines()[-1].startswith('1 problem, ')


def test_a_topic_is_measured_alone_or_said_to_be_missing(cameras):
    topics = ['front/image', '/none', '/text']
    with ThreadPoolExecutor() as pool:
        runs = pool.map(lambda topic: [vars(finding) for finding in ros(topic)], topics)
        results = dict(zip(topics, runs, strict=True))

    alone = results['front/image']
    assert named(alone, 'image topic')['values']['topic'] == '/front/image'
    assert named(alone, 'image topic')['level'] == OK
    assert '/rear/image' in named(alone, 'image topics', 'not measured')['found']

    missing = named(results['/none'], 'image topic')
    assert missing['level'] == PROBLEM
    assert '/none: no one publishes there; images are on /front/image, ' in missing['found']
    assert 'image:=/front/image' in missing['fix']

    other = named(results['/text'], 'image topic')
    assert other['level'] == PROBLEM
    assert 'is std_msgs/msg/String' in other['found']


def test_where_no_one_publishes_that_is_said(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'OFF')  # others are not found
    with ThreadPoolExecutor() as pool:
        runs = pool.map(lambda topic: [vars(finding) for finding in ros(topic)], ['', '/none'])
        anything, one = runs
    assert named(anything, 'image topics')['level'] == WARNING
    missing = named(one, 'image topic')
    assert missing['level'] == PROBLEM
    assert missing['found'] == '/none: no one publishes there; nor images anywhere else'
    for findings in (anything, one):
        assert named(findings, 'node')['found'] == 'no infinitevl_node is running'
        assert not [f for f in findings if 'could not be looked at' in f['found']]


def test_without_ros_the_rest_is_looked_at(tmp_path):
    (tmp_path / 'rclpy.py').write_text(
        'raise ModuleNotFoundError("No module named rclpy", name="rclpy")'
    )
    arguments = [(), ('--model', tmp_path), ('--topic', 'image')]
    with ThreadPoolExecutor() as pool:
        runs = pool.map(lambda words: doctor('--json', '-', *words, stub=tmp_path), arguments)
        good, broken, asked = runs
    findings = json.loads(good.stdout)['findings']
    assert good.returncode == 0, good.stdout
    assert named(findings, 'model')['level'] == OK
    assert named(findings, 'rclpy')['level'] == WARNING
    assert 'no ROS 2 here' in named(findings, 'rclpy')['found']
    assert findings[-1]['name'] == 'rclpy'

    findings = json.loads(broken.stdout)['findings']
    assert broken.returncode == 1
    assert named(findings, 'model')['level'] == PROBLEM
    assert f'{tmp_path}/config.json: missing' in named(findings, 'model')['found']

    assert asked.returncode == 1
    assert named(json.loads(asked.stdout)['findings'], 'rclpy')['level'] == PROBLEM


def test_libraries_that_cannot_be_loaded_are_told_of(tmp_path):
    (tmp_path / 'rclpy.py').write_text('raise ImportError("built for another Python")')
    (tmp_path / 'torch.py').write_text('raise OSError("libcudart.so: no such file")')
    result = doctor(stub=tmp_path)
    said = ' '.join(result.stdout.split())
    assert result.returncode == 1
    assert 'built for another Python' in said
    assert 'torch cannot be imported: libcudart.so' in said
    assert "pip install 'torch>=2.5'" in said
    assert 'Traceback' not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ('content', 'level', 'found'),
    [
        (PROFILE.read_text(), OK, '67.1 MB a process'),
        ('<dds/>', WARNING, 'no more than without it'),
        ('<dds>', PROBLEM, 'cannot be read and is passed over'),
        (None, PROBLEM, 'No such file'),
    ],
)
def test_the_profile_for_large_images_is_read(tmp_path, monkeypatch, content, level, found):
    file = tmp_path / 'profile.xml'
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(file))
    (finding,) = profile()
    assert finding.level == level
    assert found in finding.found


@pytest.mark.parametrize(
    ('variable', 'value', 'name', 'found', 'fix'),
    [
        ('RMW_IMPLEMENTATION', 'rmw_none_cpp', 'ROS', 'exit code', 'unset RMW_IMPLEMENTATION'),
        ('ROS_DOMAIN_ID', '300', 'domain', '"300", expected a number from 0 to 232', 'export'),
        ('ROS_DOMAIN_ID', 'robot', 'domain', '"robot", expected a number', 'export'),
    ],
)
def test_settings_that_end_ros_are_told_of(variable, value, name, found, fix, monkeypatch):
    monkeypatch.setenv(variable, value)
    findings = [vars(finding) for finding in ros('')]
    finding = named(findings, name, found)
    assert {'rclpy', 'interfaces', 'image topics', 'node'}.isdisjoint(
        later['name'] for later in findings[findings.index(finding) :]
    )
    assert finding['level'] == PROBLEM
    assert fix in finding['fix']


@pytest.mark.parametrize(
    ('variable', 'value', 'found'),
    [
        ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'NEAR', '"NEAR", expected one of SUBNET'),
        ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'OFF', 'no other node is found'),
        ('ROS_LOCALHOST_ONLY', '1', 'ROS_LOCALHOST_ONLY is 1'),
        ('ROS_DOMAIN_ID', '150', 'is 150, whose ports'),
    ],
)
def test_settings_that_keep_nodes_apart_are_warned_of(variable, value, found, monkeypatch):
    monkeypatch.setenv(variable, value)
    (finding,) = [finding for finding in settings() if found in finding.found]
    assert finding.level == WARNING
    assert finding.fix


def test_a_distribution_that_is_too_old_is_a_problem(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    (finding,) = distribution()
    assert finding.level == PROBLEM
    assert 'humble is sourced; needed is ROS 2 Jazzy' in finding.found


def test_what_is_required_is_what_is_installed():
    lines = (Path(__file__).parents[2] / 'requirements' / 'engine.txt').read_text().splitlines()
    wanted = {line.split('#')[0].strip() for line in lines} - {''}
    assert set(checks.REQUIRED.values()) == wanted


@pytest.mark.parametrize(
    ('version', 'requirement', 'fits'),
    [
        ('2.13.0+cpu', 'torch>=2.5', True),
        ('2.4.1', 'torch>=2.5', False),
        ('1.9.1', 'llguidance>=1.10', False),
        ('4.12.0.88', 'opencv-python-headless>=4.6,<5', True),
        ('5.0.0', 'opencv-python-headless>=4.6,<5', False),
        ('of unknown version', 'pillow>=10.1', True),
    ],
)
def test_versions(version, requirement, fits):
    assert checks.satisfies(version, requirement) is fits


def test_a_driver_without_a_torch_that_uses_it_is_a_problem(monkeypatch):
    monkeypatch.setattr(device_checks, 'nvidia_driver', lambda: '570.86')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    for cuda, found in ((None, 'it cannot use the GPU'), ('12.8', 'no GPU can be used: ')):
        monkeypatch.setattr('torch.version.cuda', cuda)
        (finding,) = device_checks.gpu()
        assert finding.level == PROBLEM
        assert 'NVIDIA driver 570.86' in finding.found
        assert found in finding.found
    monkeypatch.setattr(device_checks, 'nvidia_driver', lambda: '')
    (finding,) = device_checks.gpu()
    assert finding.level == WARNING
    assert 'CUDA 12.8 build; no NVIDIA driver' in finding.found


@pytest.mark.parametrize(
    ('broken', 'found'),
    [
        ('cut', 'not a readable safetensors file'),
        ('no tokenizer', 'tokenizer.json: missing'),
        ('no weights', 'no *.safetensors file'),
        ('no tensor', '1 tensors are missing, the first is model.norm.weight'),
        ('no folder', 'no such checkpoint folder'),
    ],
)
def test_a_broken_model_folder_is_a_problem(checkpoint, tmp_path, broken, found):
    folder = shutil.copytree(checkpoint, tmp_path / 'model')
    weights = folder / 'model.safetensors'
    if broken == 'cut':
        os.truncate(weights, weights.stat().st_size // 2)
    elif broken == 'no tokenizer':
        (folder / 'tokenizer.json').unlink()
    elif broken == 'no weights':
        weights.unlink()
    elif broken == 'no tensor':
        tensors = load_file(weights)
        del tensors['model.norm.weight']
        save_file(tensors, weights)
    else:
        shutil.rmtree(folder)
    (finding,) = device_checks.model(folder)
    assert (finding.level, finding.name) == (PROBLEM, 'model')
    assert found in finding.found
    assert '\n' not in finding.found


def test_a_model_that_does_not_fit_is_a_problem(checkpoint, monkeypatch):
    monkeypatch.setattr(device_checks, '_room', lambda on_gpu: (1000, '1.0 kB are free'))
    levels = {finding.name: finding.level for finding in device_checks.model(checkpoint)}
    assert levels == {'model': OK, 'memory': PROBLEM, 'kernels': OK}


def test_an_error_in_a_check_is_a_finding():
    def half_way():
        yield Finding(OK, 'first', 'is good')
        raise TypeError('second\nis not')

    first, second = guarded(half_way)
    assert first.level == OK
    assert second.level == PROBLEM
    assert second.found == 'could not be looked at: TypeError: second'
