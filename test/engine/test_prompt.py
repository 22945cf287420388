"""Text in and out of the model."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitevl_ros.cli.random_checkpoint import SPECIAL_TOKENS
from infinitevl_ros.engine import StreamingEngine
from infinitevl_ros.engine.prompt import Prompt, TextStream
from infinitevl_ros.model.checkpoint import load_config
from infinitevl_ros.model.config import CheckpointError

TEXT = st.text(st.characters(codec='utf-8'), max_size=40)


@pytest.fixture(scope='module')
def prompt(checkpoint):
    return Prompt(checkpoint, load_config(checkpoint))


def special_ids(prompt):
    return {prompt._control.token_to_id(token) for token in SPECIAL_TOKENS}


def test_a_turn_is_laid_out_around_the_frames(prompt):
    def show(tokens):
        return prompt._control.decode(tokens, skip_special_tokens=False)

    assert show(prompt.header('header_first')) == '<|im_start|>user\n<|vision_start|>'
    assert show(prompt.question('what is it?', 'header_first')) == (
        '<|vision_end|>what is it?<|im_end|>\n<|im_start|>assistant\n'
    )


@pytest.mark.parametrize('token', SPECIAL_TOKENS)
def test_special_tokens_in_a_question_are_text(prompt, token):
    question = f'is {token} a {token}?'
    tokens = prompt.encode(question)
    assert not special_ids(prompt) & set(tokens)
    assert prompt.decode(tokens) == question


@settings(deadline=None)
@given(TEXT)
def test_any_text_survives_and_is_never_control(prompt, text):
    tokens = prompt.encode(text)
    assert not special_ids(prompt) & set(tokens)
    assert prompt.decode(tokens) == text


def test_a_lone_surrogate_does_not_raise(prompt):
    assert prompt.decode(prompt.encode('a\ud800b')) == 'a?b'


@settings(deadline=None)
@given(TEXT)
def test_pieces_join_to_the_text(prompt, text):
    stream = TextStream(prompt)
    pieces = [stream.push(token) for token in prompt.encode(text)]
    pieces.append(stream.finish())
    assert ''.join(pieces) == stream.text == text


@settings(deadline=None)
@given(st.lists(st.integers(0, 600), max_size=30))
def test_any_tokens_give_text_without_raising(prompt, tokens):
    stream = TextStream(prompt)
    pieces = [stream.push(token) for token in tokens]
    pieces.append(stream.finish())
    assert ''.join(pieces) == stream.text


def test_unfinished_characters_are_held_back(prompt):
    stream = TextStream(prompt)
    tokens = prompt.encode('é🤖')
    pieces = [stream.push(token) for token in tokens]
    assert [piece for piece in pieces if piece] == ['é', '🤖']


@pytest.fixture
def folder(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / 'model')
    return tmp_path / 'model'


def error(folder):
    with pytest.raises(CheckpointError) as caught:
        StreamingEngine.from_checkpoint(folder)
    return str(caught.value)


def test_no_tokenizer(folder):
    (folder / 'tokenizer.json').unlink()
    assert 'tokenizer.json: missing' in error(folder)


def test_a_broken_tokenizer(folder):
    (folder / 'tokenizer.json').write_text('{"model": {"type": "Magic"}}')
    assert 'tokenizer.json: not a usable tokenizer' in error(folder)


def spec_id(spec):
    return next(t['id'] for t in spec['added_tokens'] if t['content'] == '<|image_pad|>')


def test_a_tokenizer_of_another_model(folder):
    spec = json.loads((folder / 'tokenizer.json').read_text())
    # The last two ids, so that no other token moves into their place.
    spec['added_tokens'] = [t for t in spec['added_tokens'] if t['id'] < spec_id(spec)]
    (folder / 'tokenizer.json').write_text(json.dumps(spec))
    assert 'no token for image_token_id' in error(folder)


@pytest.mark.parametrize(
    ('template', 'said'),
    [
        (None, 'no chat template'),
        ('{{ messages[0].role }}', 'must repeat the content'),
        ('{{ messages[0].content | upper }}', 'must repeat the content'),
        ('{% if %}', 'the chat template fails'),
        ('{{ raise_exception("not today") }}', 'not today'),
        ('{{ messages.__class__.__mro__ }}', 'the chat template fails'),
        ('{{ messages[0].content + 1 }}', 'the chat template fails'),
        ([{'name': 'tools', 'template': 'x'}], 'no chat template'),
    ],
)
def test_templates_that_cannot_be_used(folder, template, said):
    (folder / 'tokenizer_config.json').write_text(json.dumps({'chat_template': template}))
    assert said in error(folder)


def test_named_templates_and_spelled_out_tokens(folder):
    template = '{{ messages[0].content }}{{ eos_token }}'
    config = {
        'chat_template': [{'name': 'default', 'template': template}],
        'eos_token': {'content': '<|im_end|>', 'special': True},
    }
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))
    prompt = Prompt(folder, load_config(folder))
    assert prompt.question('hm', 'header_first')[-1] == prompt._control.token_to_id('<|im_end|>')


def test_a_tokenizer_saved_with_truncation_and_padding_cuts_nothing(folder):
    prompt = Prompt(folder, load_config(folder))
    tokenizer = prompt._control
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=12)
    tokenizer.save(str(folder / 'tokenizer.json'))
    again = Prompt(folder, load_config(folder))
    assert again.decode(again.encode('a question of many words')) == 'a question of many words'


@pytest.mark.parametrize('name', ['chat_template.jinja', 'chat_template.json'])
def test_a_template_in_a_file_of_its_own(folder, name):
    template = 'USER {{ messages[0].content }} BOT'
    (folder / 'tokenizer_config.json').unlink()
    text = template if name.endswith('jinja') else json.dumps({'chat_template': template})
    (folder / name).write_text(text)
    prompt = Prompt(folder, load_config(folder))
    assert prompt.decode(prompt.question('hm', 'header_first')) == 'hm BOT'
