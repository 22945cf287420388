"""JSON answers: which tokens may come next if the text is to fit a JSON Schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

# As json.dumps writes it. No other space is allowed: a model could fill an answer with it.
LAYOUT = {'item_separator': ', ', 'key_separator': ': ', 'whitespace_flexible': False}
# What UTF-8 text without control characters is made of.
TEXT_BYTES = (*range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF5))
# llguidance makes a state for every remainder, of as many as all factors multiply to: at a hundred
# thousand that takes a sixth of a second, at a hundred million minutes, which nothing interrupts.
MOST_REMAINDERS = 10_000


class GrammarError(ValueError):
    """llguidance gave up on a schema; the message is what it says."""


def read_schema(text: str) -> str:
    """A JSON Schema in its shortest form; ValueError when `text` cannot be one."""
    try:
        schema = json.loads(text, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'json_schema cannot be read as JSON: {error}') from None
    if schema is True:
        schema = {}  # means the same
    if not isinstance(schema, dict):
        found = json.dumps(schema)[:40]
        raise ValueError(f'json_schema is {found}, expected an object, or true for any JSON')
    # Where llguidance looks for settings: they could allow what is not JSON, or not the schema's.
    schema.pop('x-guidance', None)
    factors = (Fraction(str(factor)) for factor in _factors(schema))
    remainders = math.prod(abs(part) for f in factors for part in f.as_integer_ratio() if part)
    if remainders > MOST_REMAINDERS:
        raise ValueError(
            f'json_schema: multipleOf may come to {MOST_REMAINDERS} in all, multiplied; '
            f'this is {remainders}'
        )
    return json.dumps(schema, ensure_ascii=False, separators=(',', ':'))


def _factors(schema: object) -> Iterator[float]:
    """Every number under multipleOf, at any depth."""
    if isinstance(schema, list):
        for part in schema:
            yield from _factors(part)
    elif isinstance(schema, dict):
        for name, part in schema.items():
            number = isinstance(part, int | float) and math.isfinite(part)
            if name == 'multipleOf' and number:
                yield part
            yield from _factors(part)


def _whole_number(digits: str) -> int:
    """A whole number that llguidance, which keeps float64, writes as it stands."""
    if abs(number := int(digits)) > 2**53:
        raise ValueError(f'{digits[:40]} is past 2**53, where whole numbers stop being exact')
    return number


class JsonGrammar:
    """JSON Schemas in the tokens of one checkpoint."""

    def __init__(self, tokenizer: str, vocab_size: int, ends: Sequence[int]):
        """`tokenizer` is a tokenizer.json, `vocab_size` the network's, `ends` the end tokens.

        Raises ValueError when llguidance is not installed or the tokenizer cannot write JSON.
        """
        try:
            import llguidance
        except ImportError:
            raise ValueError('a JSON answer needs llguidance: pip install llguidance') from None
        self._new_matcher = llguidance.LLMatcher
        self._vocab_size = vocab_size
        self._tokenizer = llguidance.LLTokenizer(
            tokenizer,
            n_vocab=vocab_size,
            eos_token=list(ends),
            slices=llguidance.LLTokenizer.json_slices(),
        )
        # With a token for each byte whatever is begun can be ended.
        tokens = {self._tokenizer.decode_bytes([token]) for token in range(vocab_size)}
        missing = [byte for byte in TEXT_BYTES if bytes([byte]) not in tokens]
        if missing:
            raise ValueError(
                'this checkpoint cannot answer in JSON: its tokenizer needs a token for each byte '
                f'of text, and has none for {bytes(missing)}'
            )

    def begin(self, schema: str) -> JsonMatcher:
        """For an answer that fits `schema`, as read_schema gives it.

        Raises ValueError, with what llguidance says, when that cannot be kept to.
        """
        try:
            grammar = self._new_matcher.grammar_from_json_schema(schema, overrides=LAYOUT)
            matcher = self._new_matcher(self._tokenizer, grammar, log_level=0)
            matcher = JsonMatcher(matcher, self._vocab_size)
            matcher.mask()  # some schemas fail only here
        except ValueError as error:
            raise ValueError(f'json_schema is not a usable JSON Schema: {error}') from None
        return matcher


class JsonMatcher:
    """The tokens of one answer up to now, and what they let follow.

    All methods raise GrammarError.
    """

    def __init__(self, matcher: object, vocab_size: int):
        """`matcher`: llguidance's, at the start."""
        self._matcher, self._vocab_size = matcher, vocab_size
        self._check()

    def mask(self) -> Tensor:
        """Tokens that may not come next, bool [vocabulary]; at the end all but the end tokens."""
        allowed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        forbidden = np.unpackbits(~allowed, count=self._vocab_size, bitorder='little')
        return torch.from_numpy(forbidden.view(bool))

    def accept(self, token: int) -> None:
        """Go on by a token that the mask allows."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether only an end token may follow."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            # After the first line it shows its own state.
            message = self._matcher.get_error().split('\n<state>')[0]
            raise GrammarError(f'llguidance: {message}')
