"""What the pages say can be run, exists or leads somewhere."""

import argparse
import importlib
import importlib.util
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import infinitevl_ros.action
import infinitevl_ros.srv
from infinitevl_ros.cli.main import COMMANDS
from infinitevl_ros.ros import parameters

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / 'docs').glob('*.md'))
MADE = {'build', 'install', 'log', 'runs'}
MARKDOWN = sorted(
    path
    for path in ROOT.rglob('*.md')
    if not any(part.startswith('.') or part in MADE for part in path.relative_to(ROOT).parts)
)
COMMAND_PAGES = [*DOCS, ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'bench/README.md']
FENCE = re.compile(r'^ *```(\w*)\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)')
HEADING = re.compile(r'^#+ (.*)$', re.MULTILINE)
FOLDERS = 'bench|config|docker|docs|infinitevl_ros|launch|models|requirements|test|training'
PATH = re.compile(rf'(?:{FOLDERS})/[\w./-]*\w')
INTERFACE = re.compile(r'infinitevl_ros/((?:srv|action|msg)/)?[A-Z]\w+')
OPTION = re.compile(r'--[a-z][a-z-]*')


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def pages(paths):
    return pytest.mark.parametrize('page', paths, ids=names(paths))


def blocks(page, language):
    return [text for found, text in FENCE.findall(page.read_text()) if found == language]


def prose(page):
    return FENCE.sub('', page.read_text())


def anchors(page):
    """What GitHub makes of headings."""
    found = set()
    for heading in HEADING.findall(prose(page)):
        text = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower()
        found.add(re.sub(r'[^\w\- ]', '', text).strip().replace(' ', '-'))
    return found


def commands(page):
    """Words of each command in the page's shell blocks and inline code."""
    lines = []
    for block in blocks(page, 'sh'):
        lines += re.sub(r'\\\n', ' ', block).splitlines()
    lines += re.findall(r'`([^`\n]+)`', prose(page))
    found = []
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a part of a longer quotation, or no command at all
            continue
        if words[:2] == ['./dev', 'run']:
            words = words[2:]
        elif words[:1] == ['./dev'] and words[1:2] and words[1] in COMMANDS:
            words = ['infinitevl', *words[1:]]
        if words:
            found.append(words)
    return found


def help_of(command):
    module = importlib.import_module(f'infinitevl_ros.cli.{COMMANDS[command][0]}')
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return set(OPTION.findall(parser.format_help()))


@pages([page for page in DOCS if '```python' in page.read_text()])
def test_python_blocks_run_one_after_another(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for a small network more of them only wait for one another
    try:
        space = {'__name__': 'page'}
        for number, block in enumerate(blocks(page, 'python'), 1):
            exec(compile(block, f'{page.name}, block {number}', 'exec'), space)
    finally:
        torch.set_num_threads(threads)


@pages(MARKDOWN)
def test_links_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        if re.match(r'[a-z]+:', target):
            continue
        file, _, anchor = target.partition('#')
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f'{page.name} links to {target}: there is no {path}'
        assert not anchor or anchor in anchors(path), f'{page.name}: no heading for {target}'


def test_every_page_is_in_the_index():
    linked = set(LINK.findall((ROOT / 'docs/README.md').read_text()))
    assert {page.name for page in DOCS} - {'README.md'} <= linked


@pages(COMMAND_PAGES)
def test_commands_of_infinitevl_exist_with_their_options(page):
    for words in commands(page):
        if words[0] != 'infinitevl' or len(words) < 2 or words[1].startswith('-'):
            continue
        assert words[1] in COMMANDS, f'{page.name}: {" ".join(words)}'
        given = {word.split('=')[0] for word in words[2:] if OPTION.match(word)} - {'--help'}
        assert given <= help_of(words[1]), f'{page.name}: {" ".join(words)}'


@pages(COMMAND_PAGES)
def test_commands_of_dev_exist(page):
    usage = (ROOT / 'dev').read_text()
    for words in commands(page):
        if words[0].endswith('./dev') and len(words) > 1 and words[1].isalpha():
            assert re.search(rf'^  {words[1]}\b', usage, re.MULTILINE), f'{page.name}: {words}'


@pages(COMMAND_PAGES)
def test_scripts_have_the_options_they_are_called_with(page):
    for words in commands(page):
        if words[0] == 'python3' and len(words) > 1 and words[1].endswith('.py'):
            script = (ROOT / words[1]).read_text()
            for option in filter(OPTION.match, words[2:]):
                assert f"'{option}'" in script, f'{page.name}: {" ".join(words)}'


@pages(COMMAND_PAGES)
def test_paths_of_the_repository_exist(page):
    text = ' '.join(word for words in commands(page) for word in words)
    for path in filter(PATH.fullmatch, re.split(r'[\s=,;:(){}]+', text)):
        if not INTERFACE.fullmatch(path):
            assert (ROOT / path).exists(), f'{page.name} tells of {path}'


@pages(COMMAND_PAGES)
def test_interfaces_exist(page):
    text = page.read_text()
    for word in {match[0] for match in INTERFACE.finditer(text)}:
        _, *kind, name = word.split('/')
        kinds = kind or ('msg', 'srv', 'action')
        assert any((ROOT / k / f'{name}.{k}').is_file() for k in kinds), f'{page.name}: {word}'


@pages(COMMAND_PAGES)
def test_requests_fit_their_interfaces(page):
    kinds = {'service': (infinitevl_ros.srv, 'Request'), 'action': (infinitevl_ros.action, 'Goal')}
    for words in commands(page):
        if words[0] != 'ros2' or words[1] not in kinds:
            continue
        for place, word in enumerate(words):
            if not word.startswith('infinitevl_ros/'):
                continue
            module, part = kinds[words[1]]
            kind = getattr(getattr(module, word.rsplit('/')[-1]), part)
            given = yaml.safe_load(words[place + 1]) if words[place + 1 :] else {}
            fields = kind.get_fields_and_field_types()
            assert given.keys() <= fields.keys(), f'{page.name}: {words}'


@pages(COMMAND_PAGES)
def test_launch_files_have_the_arguments_they_are_given(page):
    shared = (ROOT / 'infinitevl_ros/ros/launching.py').read_text()
    for words in commands(page):
        if words[:3] != ['ros2', 'launch', 'infinitevl_ros'] or not words[3].endswith('.py'):
            continue
        file = (ROOT / 'launch' / words[3]).read_text()
        for name in (word.split(':=')[0] for word in words[4:] if ':=' in word):
            declared = file + (shared if 'launching.ARGUMENTS' in file else '')
            assert f"'{name}'" in declared, f'{page.name}: {" ".join(words)}'


def test_the_picture_is_what_its_script_draws(tmp_path):
    script = ROOT / 'docs/how_it_works.py'
    spec = importlib.util.spec_from_file_location('how_it_works', script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.draw(tmp_path / 'drawn.png')
    drawn, kept = (
        np.asarray(Image.open(path).convert('RGBA'), np.int16)
        for path in (tmp_path / 'drawn.png', script.with_suffix('.png'))
    )
    assert drawn.shape == kept.shape
    # The letters of a distribution's matplotlib may be hinted a little differently.
    assert np.abs(drawn - kept).mean() < 0.5, f'run python3 {script.relative_to(ROOT)}'


INSTRUCTIONS = re.compile('ARG|FROM|SHELL|WORKDIR|COPY|RUN|USER|ENV|ENTRYPOINT|CMD')
SHARE = '/ws/install/infinitevl_ros/share/infinitevl_ros/'


@pytest.fixture(scope='module')
def dockerfile():
    """Pairs of an instruction and what follows it."""
    text = re.sub(r'^#.*\n', '', (ROOT / 'docker/Dockerfile').read_text(), flags=re.MULTILINE)
    lines = filter(str.strip, re.sub(r'\\\n', ' ', text).splitlines())
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.fixture(scope='module')
def service():
    (service,) = compose()['services'].values()
    return service


def compose():
    return yaml.safe_load((ROOT / 'docker/compose.yaml').read_text())


def test_the_image_is_built_from_what_is_here_and_runs_as_a_user(dockerfile):
    for instruction, rest in dockerfile:
        assert INSTRUCTIONS.fullmatch(instruction), f'{instruction} {rest}'
    ignored = (ROOT / '.dockerignore').read_text().split()
    for source in (rest.split()[0] for instruction, rest in dockerfile if instruction == 'COPY'):
        assert (ROOT / source).exists(), source
        assert source not in ignored, source
    users = [rest for instruction, rest in dockerfile if instruction == 'USER']
    assert users[-1] not in ('root', '0')
    assert os.access(ROOT / 'docker/entrypoint.sh', os.X_OK)


def test_the_image_installs_what_rosdep_cannot(dockerfile):
    (install,) = (rest for _, rest in dockerfile if 'pip install' in rest)
    (told,) = re.findall(r'^pip install (.*)$', (ROOT / 'README.md').read_text(), re.MULTILINE)
    missing = set(shlex.split(told)) - set(install.split())
    assert not missing, 'README.md installs these as well'


def test_the_service_names_files_parameters_and_volumes_that_exist(service):
    assert (ROOT / 'docker' / service['build']['context'] / 'docker/Dockerfile').is_file()
    text = (ROOT / 'docker/compose.yaml').read_text()
    for file in re.findall(rf'{SHARE}(\S+)', text):
        assert (ROOT / re.sub(r'\$\{\w+:-(\S+)\}', r'\1', file)).is_file(), file
    given = [word.split(':=')[0] for word in service['command'] if ':=' in word]
    assert set(given) <= {parameter.name for parameter in parameters.PARAMETERS}
    named = {v.split(':')[0] for v in service['volumes'] if not v.startswith(('$', '.', '/'))}
    assert named == compose()['volumes'].keys()


def test_the_service_shares_memory_with_cameras_and_is_looked_after(service):
    assert service['ipc'] == service['network_mode'] == 'host'
    (device,) = service['deploy']['resources']['reservations']['devices']
    assert device['capabilities'] == ['gpu']
    assert service['restart'] == 'unless-stopped'
    assert '/infinitevl_node' in service['healthcheck']['test'][-1]
