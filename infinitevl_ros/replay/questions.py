"""Questions for a stream, with the answers that are expected, from YAML files.

threshold: 0.9                 # part of the expectations that must be met; 1 when left out
questions:
  - ask: Which room is this?
    at: 12.5                   # seconds of stream time; at the end when left out
    expect: kitchen            # exactly, but for case, space and a full stop
  - ask: What is on the table?
    expect: {any: [a cup, a red cup]}      # or {contains: cup}, {regex: 'red|crimson'}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..engine import Sampling

MAX_TOKENS = 64
KINDS = ('exact', 'any', 'contains', 'regex')
KEYS = ('ask', 'at', 'expect', 'max_tokens')


@dataclass(frozen=True)
class Expectation:
    """What an answer must be; `kind` is one of KINDS."""

    kind: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not self.values or not all(map(str.strip, self.values)):
            raise ValueError(
                f'expect takes one of {", ".join(KINDS)} with a text that is not empty'
            )
        if self.kind == 'regex':
            try:
                re.compile(self.values[0])
            except re.error as error:
                raise ValueError(f'regex "{self.values[0]}": {error}') from None

    def met_by(self, text: str) -> bool:
        if self.kind == 'regex':
            return re.search(self.values[0], text, re.IGNORECASE) is not None
        said, wanted = _plain(text), [_plain(value) for value in self.values]
        return wanted[0] in said if self.kind == 'contains' else said in wanted

    def __str__(self) -> str:
        if self.kind == 'exact':
            return self.values[0]
        if self.kind == 'any':
            return f'any of {", ".join(self.values)}'
        return f'{self.kind} {self.values[0]}'


@dataclass(frozen=True)
class Question:
    """What to ask, when (seconds of stream time; None: at the end), and what is expected."""

    text: str
    at: float | None = None
    expected: Expectation | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=MAX_TOKENS))


@dataclass(frozen=True)
class Questions:
    """A file of questions; `threshold` is the part of expectations that must be met."""

    questions: tuple[Question, ...]
    threshold: float = 1.0


class QuestionsError(ValueError):
    """A file of questions with a mistake; the text names the file and the line."""


def load_questions(path: str | Path) -> Questions:
    """Read a YAML file, see above. Raises QuestionsError."""
    path = Path(path).expanduser()
    try:
        text = path.read_text('utf-8')
    except OSError as error:
        raise QuestionsError(f'{path}: {error.strerror or error}') from None
    except UnicodeDecodeError:
        raise QuestionsError(f'{path}: not a text, expected YAML') from None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark or error.context_mark).line + 1
        raise QuestionsError(f'{path}, line {line}: {error.problem}') from None
    except yaml.reader.ReaderError as error:
        line = text.count('\n', 0, error.position) + 1
        raise QuestionsError(f'{path}, line {line}: {error.reason}') from None
    except RecursionError:
        raise QuestionsError(f'{path}: nested too deeply') from None
    return _Reader(path).file(root)


class _Reader:
    """Takes the nodes of a file apart; what is wrong with one is told with its line."""

    def __init__(self, path: Path):
        self._path = path

    def file(self, root: yaml.Node | None) -> Questions:
        if not isinstance(root, yaml.MappingNode):
            raise QuestionsError(f'{self._path}, line 1: expected "questions:" with a list')
        fields = self._fields(root, ('questions', 'threshold'))
        listed = fields.get('questions')
        if not isinstance(listed, yaml.SequenceNode) or not listed.value:
            self._fail(listed or root, 'expected "questions:" with a list of at least one')
        threshold = self._number(fields.get('threshold'), 1.0)
        if threshold > 1:
            self._fail(fields['threshold'], f'threshold is {threshold}, expected 0 to 1')
        return Questions(tuple(self._question(node) for node in listed.value), threshold)

    def _question(self, node: yaml.Node) -> Question:
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, 'expected a question: "ask:" with a text')
        fields = self._fields(node, KEYS)
        text = self._text(fields.get('ask', node), 'ask') if 'ask' in fields else ''
        if not text.strip():
            self._fail(fields.get('ask', node), 'a question without a text in "ask:"')
        at = self._number(fields['at']) if 'at' in fields else None
        expected = self._expectation(fields['expect']) if 'expect' in fields else None
        most = self._number(fields.get('max_tokens'), MAX_TOKENS)
        if most < 1 or most % 1:
            self._fail(fields['max_tokens'], f'max_tokens is {most}, expected a number from 1 on')
        return Question(text, at, expected, Sampling(max_tokens=int(most)))

    def _expectation(self, node: yaml.Node) -> Expectation:
        kind, value = 'exact', node
        if isinstance(node, yaml.MappingNode):
            fields = self._fields(node, KINDS)
            if len(fields) != 1:
                self._fail(node, f'expect takes one of {", ".join(KINDS)}')
            ((kind, value),) = fields.items()
        if kind == 'any' and isinstance(value, yaml.SequenceNode):
            values = tuple(self._text(item, 'any') for item in value.value)
        else:
            values = (self._text(value, kind),)
        try:
            return Expectation(kind, values)
        except ValueError as error:
            self._fail(value, str(error))

    def _fields(self, node: yaml.MappingNode, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else '?'
            if name not in known:
                self._fail(key, f'"{name}" is not known here, expected {", ".join(known)}')
            if name in fields:
                self._fail(key, f'"{name}" a second time')
            fields[name] = value
        return fields

    def _text(self, node: yaml.Node, name: str) -> str:
        """As it is written: yes and 3 are words here."""
        if not isinstance(node, yaml.ScalarNode):
            self._fail(node, f'{name}: expected a text')
        return node.value

    def _number(self, node: yaml.Node | None, default: float = 0.0) -> float:
        if node is None:
            return default
        value: Any = node.value if isinstance(node, yaml.ScalarNode) else None
        try:
            number = float(value)
        except (TypeError, ValueError):
            self._fail(node, f'expected a number, found {value!r}')
        if not 0 <= number < float('inf'):
            self._fail(node, f'{value} is not a number from 0 on')
        return number

    def _fail(self, node: yaml.Node, reason: str) -> None:
        raise QuestionsError(f'{self._path}, line {node.start_mark.line + 1}: {reason}')


def _plain(text: str) -> str:
    return ' '.join(text.casefold().split()).rstrip('.')
