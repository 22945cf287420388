"""Text in and out: the checkpoint's tokenizer and chat template around a stream of frames."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ..model.checkpoint import read_json
from ..model.config import CheckpointError, ModelConfig

# Stands for the question while the template is rendered: text that no template would add.
QUESTION = '\u2402question\u2403'


class Prompt:
    """How a stream is put into words for one checkpoint.

    In the layout `header_first` the stream opens with the chat template up to and including
    <|vision_start|>; frames follow; a question closes the picture and asks, inside the same user
    turn. In the layout `published` the stream opens with <|vision_start|> alone, and the whole
    template follows the end of the picture: the model learns only then that a user is speaking.
    """

    def __init__(self, folder: Path, config: ModelConfig):
        file = folder / 'tokenizer.json'
        spec = read_json(file)
        try:
            self._control = Tokenizer.from_str(json.dumps(spec))
            # The same tokenizer without its added tokens: what a user writes is only ever text.
            plain = copy.deepcopy(spec)
            plain['added_tokens'] = []
            plain['post_processor'] = None
            self._plain = Tokenizer.from_str(json.dumps(plain))
            for tokenizer in (self._control, self._plain):
                # Settings of a training run; a question is never cut or filled up.
                tokenizer.no_truncation()
                tokenizer.no_padding()
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f'{file}: not a usable tokenizer: {error}') from None
        if self._control.get_vocab_size() > config.vocab_size:
            raise CheckpointError(
                f'{file}: {self._control.get_vocab_size()} tokens, but the network has '
                f'{config.vocab_size}'
            )
        start, image, end = (
            self._token(file, name, getattr(config, name))
            for name in ('vision_start_token_id', 'image_token_id', 'vision_end_token_id')
        )
        text = _render(folder, f'{start}{image}{end}{QUESTION}')
        parts = text.replace(QUESTION, image).split(image)
        if len(parts) != 3 or not parts[0].endswith(start) or not parts[1].endswith(end):
            raise CheckpointError(
                f'{folder}: the chat template must repeat the content of a user message once, '
                f'unchanged; it gives {text!r}'
            )
        self._header, self._before, self._after = (
            self._control.encode(part, add_special_tokens=False).ids for part in parts
        )

    def header(self, layout: str) -> list[int]:
        """Token ids that open the stream."""
        return self._header if layout == 'header_first' else self._header[-1:]

    def question(self, text: str, layout: str) -> list[int]:
        """Token ids that follow the frames: end of picture, the text, the assistant's turn."""
        before = self._before
        if layout == 'published':
            before = before[:1] + self._header[:-1] + before[1:]
        return before + self.encode(text) + self._after

    def tokenizer_json(self) -> str:
        """The tokenizer, as tokenizer.json holds it."""
        return self._control.to_str()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens spelled out in it stay text."""
        # Lone surrogates, as a broken client may send, have no UTF-8 form.
        text = text.encode('utf-8', 'replace').decode('utf-8')
        return self._plain.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: list[int]) -> str:
        """Text of token ids, without special tokens."""
        return self._control.decode(tokens, skip_special_tokens=True)

    def _token(self, file: Path, name: str, token_id: int) -> str:
        token = self._control.id_to_token(token_id)
        if token is None:
            raise CheckpointError(f'{file}: no token for {name} {token_id} of config.json')
        return token


def json_question(question: str, schema: str) -> str:
    """A question that says what its answer must look like: a grammar alone gives no hint."""
    return f'{question}\nAnswer in JSON of this schema: {schema}'


class TextStream:
    """Turns tokens into text as they come, holding back bytes of unfinished characters."""

    def __init__(self, prompt: Prompt):
        self._prompt = prompt
        self._tokens: list[int] = []
        self._start = self._shown = 0
        self.text = ''

    def push(self, token: int) -> str:
        """Add a token; returns the text that it completes, which may be empty."""
        self._tokens.append(token)
        # Decode from the last finished piece on: the cost of a token does not grow with the text,
        # and the piece before it tells a tokenizer that needs it about spaces.
        before = self._prompt.decode(self._tokens[self._start : self._shown])
        after = self._prompt.decode(self._tokens[self._start :])
        if len(after) <= len(before) or after.endswith('\N{REPLACEMENT CHARACTER}'):
            return ''
        return self._show(after[len(before) :])

    def finish(self) -> str:
        """The rest, broken characters included."""
        before = self._prompt.decode(self._tokens[self._start : self._shown])
        after = self._prompt.decode(self._tokens[self._start :])
        return self._show(after[len(before) :])

    def _show(self, piece: str) -> str:
        self._start, self._shown = self._shown, len(self._tokens)
        self.text += piece
        return piece


def _render(folder: Path, content: str) -> str:
    """One user turn with the assistant's turn opened, by the checkpoint's chat template."""
    file = folder / 'tokenizer_config.json'
    config = read_json(file) if file.is_file() else {}
    template = _template(folder, config)
    if not isinstance(template, str):
        raise CheckpointError(f'{folder}: no chat template in tokenizer_config.json or beside it')

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals['raise_exception'] = refuse
    special = {}
    for name in ('bos_token', 'eos_token'):
        if token := config.get(name):
            special[name] = token.get('content') if isinstance(token, dict) else token
    try:
        return environment.from_string(template).render(
            messages=[{'role': 'user', 'content': content}], add_generation_prompt=True, **special
        )
    except Exception as error:  # a template can fail in any way that an expression can
        raise CheckpointError(f'{folder}: the chat template fails: {error}') from None


def _template(folder: Path, config: dict) -> object:
    """The chat template: a file of its own comes before tokenizer_config.json."""
    file = folder / 'chat_template.jinja'
    if file.is_file():
        return file.read_text('utf-8')
    file = folder / 'chat_template.json'
    if file.is_file():
        return read_json(file).get('chat_template')
    template = config.get('chat_template')
    if isinstance(template, list):  # several, by name
        named = {item.get('name'): item.get('template') for item in template}
        return named.get('default')
    return template
