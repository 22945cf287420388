"""Answers in JSON: they fit their schema, whatever the network would rather say."""

import json
import random
import shutil
import sys
import time

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitevl_ros.engine import Sampling, StreamingEngine
from infinitevl_ros.engine.grammar import GrammarError, JsonGrammar, read_schema
from infinitevl_ros.model.default import default_checkpoint

SECOND = 1_000_000_000


def record(**properties):
    """A schema of an object with exactly these properties."""
    return {
        'type': 'object',
        'properties': properties,
        'required': list(properties),
        'additionalProperties': False,
    }


COLOUR = {'type': 'string', 'enum': ['red', 'dark green', 'übergelb', '"quoted"']}
COUNT = {'type': 'integer', 'minimum': 3, 'maximum': 1200}
SCHEMAS = {
    'enum': record(colour=COLOUR),
    'integer': record(count=COUNT),
    'boolean': record(seen={'type': 'boolean'}, why={'type': 'null'}),
    'array': {'type': 'array', 'items': COLOUR, 'minItems': 1, 'maxItems': 4},
    'string': record(name={'type': 'string', 'maxLength': 12}),
    'choice': {'anyOf': [COUNT, COLOUR, {'const': None}]},
    'nested': record(
        room=record(name={'type': 'string', 'pattern': '^[a-z]{2,8}$'}, light={'type': 'boolean'}),
        things={'type': 'array', 'maxItems': 3, 'items': record(what=COLOUR, count=COUNT)},
    ),
}


@pytest.fixture(scope='module')
def tiny():
    """The trained model; the fixture `engine` has random weights and another tokenizer."""
    return StreamingEngine.from_checkpoint(default_checkpoint())


@pytest.fixture(params=['random', 'trained'])
def model(request, engine, tiny):
    return engine if request.param == 'random' else tiny


@pytest.fixture
def folder(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / 'model')
    return tmp_path / 'model'


def filled(engine, frames=3):
    memory = engine.new_memory()
    for i in range(frames):
        pixels = np.random.default_rng(i).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        engine.ingest(memory, pixels, i * SECOND // 10)
    return memory


def ask(engine, memory, schema, max_tokens=400, **sampling):
    schema = schema if isinstance(schema, str) else json.dumps(schema)
    sampling = Sampling(max_tokens=max_tokens, json_schema=schema, **sampling)
    return engine.ask(memory, 'What do you see?', sampling)


def finished(answer):
    pieces = list(answer)
    assert ''.join(pieces) == answer.text
    return answer


@pytest.mark.parametrize('name', SCHEMAS)
def test_an_answer_fits_its_schema_and_ends_by_itself(model, name):
    memory = filled(model)
    drawn = [{'temperature': 1.0, 'seed': seed} for seed in range(2)]
    for sampling in ({}, *drawn, {'temperature': 3.0, 'top_p': 0.9, 'seed': 9}):
        answer = finished(ask(model, memory, SCHEMAS[name], **sampling))
        assert answer.finish == 'end'
        value = json.loads(answer.text)
        jsonschema.validate(value, SCHEMAS[name])
        if name != 'string':  # the same string can be written in several ways
            assert answer.text == json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_what_is_forbidden_is_never_drawn_and_the_rest_keeps_its_rank(engine, temperature):
    memory, size = filled(engine), engine.weights.config.vocab_size
    question = engine.prompt.question('what?', 'header_first')[: engine.tokens_per_frame]

    def first(forbidden, seed=0):
        branch = engine.new_memory()
        branch.copy_(memory)
        sampling = Sampling(temperature=temperature, seed=seed)
        with torch.no_grad():
            decoding = engine._runner.begin(branch.state, sampling)
            decoding.read(question, True, forbidden)
            decoding.go_on(forbidden)
        decoding.token()
        return decoding.token()

    forbidden = torch.zeros(size, dtype=torch.bool)
    assert first(forbidden) == first(None)
    best = [first(forbidden)]
    for _ in range(5):
        forbidden[best[-1]] = True
        best.append(first(forbidden))
    assert len(set(best)) == 6
    few = torch.ones(size, dtype=torch.bool)
    few[best[3:]] = False
    drawn = {first(few, seed) for seed in range(12)}
    assert drawn <= set(best[3:])
    assert len(drawn) > 1 or temperature == 0.0


def test_the_model_is_told_the_schema(engine):
    memory = filled(engine)
    answer = ask(engine, memory, json.dumps(SCHEMAS['enum'], indent=4))
    compact = json.dumps(SCHEMAS['enum'], ensure_ascii=False, separators=(',', ':'))
    question = f'What do you see?\nAnswer in JSON of this schema: {compact}'
    assert answer._unread == engine.prompt.question(question, 'header_first')


@pytest.mark.parametrize('schema', ['true', '{}', '{"title": "anything"}'])
def test_any_json_may_be_asked_for(engine, schema):
    memory = filled(engine)
    for seed in range(8):
        answer = finished(ask(engine, memory, schema, max_tokens=40, temperature=1.0, seed=seed))
        if answer.finish == 'end':
            json.loads(answer.text)
        else:
            assert (answer.finish, answer.tokens) == ('length', 40)


def test_settings_of_llguidance_in_a_schema_have_no_effect(engine):
    """They could put anything between two items, or pass over what is not supported."""
    memory = filled(engine)
    settings = {'item_separator': 'x', 'whitespace_flexible': True, 'lenient': True}
    schema = {'x-guidance': settings, 'type': 'array', 'minItems': 2, 'items': {'const': 1}}
    assert finished(ask(engine, memory, {**schema, 'maxItems': 2})).text == '[1, 1]'
    with pytest.raises(ValueError, match='uniqueItems'):
        ask(engine, memory, {**schema, 'uniqueItems': True})


def test_an_answer_that_is_cut_short_says_so_and_is_the_beginning_of_the_whole(model):
    memory = filled(model)
    drawn = {'temperature': 1.0, 'seed': 3}
    whole = finished(ask(model, memory, SCHEMAS['array'], **drawn))
    for tokens in (1, whole.tokens // 2, whole.tokens - 1):
        cut = finished(ask(model, memory, SCHEMAS['array'], tokens, **drawn))
        assert (cut.finish, cut.token_ids) == ('length', whole.token_ids[:tokens])
        assert whole.text.startswith(cut.text.rstrip('\N{REPLACEMENT CHARACTER}'))
    exact = finished(ask(model, memory, SCHEMAS['array'], whole.tokens, **drawn))
    assert (exact.finish, exact.text) == ('end', whole.text)


def test_a_text_without_end_stops_at_max_tokens(model):
    schema = record(story={'type': 'string', 'minLength': 10_000})
    answer = finished(ask(model, filled(model), schema, max_tokens=30, temperature=1.0, seed=0))
    assert (answer.finish, answer.tokens) == ('length', 30)
    assert answer.text.startswith('{"story": "')


@pytest.mark.parametrize(
    ('schema', 'said'),
    [
        ('colour', 'json_schema cannot be read as JSON: Expecting value'),
        ('{"type": ', 'json_schema cannot be read as JSON'),
        ('[' * 20_000, 'json_schema cannot be read as JSON'),
        ('{"enum": [9007199254740993]}', '9007199254740993 is past 2..53'),
        ('[1, 2]', r'json_schema is \[1, 2\], expected an object'),
        ('"string"', 'json_schema is "string", expected an object'),
        ('null', 'json_schema is null, expected an object'),
        ('false', 'json_schema is false, expected an object, or true'),
        ('{"type": "colour"}', 'not a usable JSON Schema: llguidance: Invalid type: colour'),
        ('{"type": 3}', 'not a usable JSON Schema: llguidance: type must be'),
        ('{"minimum": NaN}', 'not a usable JSON Schema'),
        ('{"const": "\\ud800"}', 'not a usable JSON Schema'),
        ('{"not": {}}', 'not a usable JSON Schema: .*"not"'),
        ('{"$ref": "http://localhost/schema"}', 'not a usable JSON Schema: .*localhost'),
        ('{"enum": []}', 'not a usable JSON Schema: llguidance: Unsatisfiable'),
        ('{"type": "integer", "minimum": 5, "maximum": 3}', 'minimum .5. is greater'),
        ('{"type": "string", "pattern": "(?=a)b"}', 'look-around'),
        ('{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}', 'not a usable'),
        ('{"items":' * 130 + '{}' + '}' * 130, 'not a usable JSON Schema: recursion limit'),
        (json.dumps({'const': 'x' * 4000}), 'question with its schema is .* at most 2048 fit'),
        (json.dumps({'const': 'x' * 40_000}), 'question with its schema is .* at most 32768 fit'),
    ],
    ids=lambda value: value[:40],
)
def test_a_schema_that_cannot_be_kept_to_is_refused_at_once(engine, schema, said):
    memory = filled(engine)
    with pytest.raises(ValueError, match=said) as caught:
        ask(engine, memory, schema)
    assert len(str(caught.value).splitlines()) < 5
    assert len(engine._free) == 2


@pytest.mark.parametrize(
    'schema',
    [
        {'type': 'integer', 'multipleOf': 99999989},
        {'allOf': [{'multipleOf': 9973}, {'multipleOf': 9967}]},
        {'properties': {'x': {'items': {'type': 'number', 'multipleOf': 1e-9}}}},
    ],
)
def test_what_would_take_minutes_to_prepare_is_refused_at_once(engine, schema):
    began = time.monotonic()
    with pytest.raises(ValueError, match='multipleOf may come to 10000 in all'):
        ask(engine, filled(engine), schema)
    assert time.monotonic() - began < 1


def test_common_multiples_are_not():
    for factor in (0.01, 0.5, 5, 100, 1000):
        assert json.loads(read_schema(json.dumps({'multipleOf': factor})))['multipleOf'] == factor
    read_schema('{"properties": {"multipleOf": {"type": "string"}}}')


def test_a_schema_that_no_text_fits_ends_its_answer_with_an_error(engine):
    """An object in an object in an object: that shows only on the way."""
    schema = {'$ref': '#/$defs/a', '$defs': {'a': record(a={'$ref': '#/$defs/a'})}}
    answer = ask(engine, filled(engine), schema)
    with pytest.raises(GrammarError, match=r'llguidance: .*Too many items'):
        list(answer)
    assert answer.finish == 'closed'
    assert len(engine._free) == 2


def test_without_llguidance_only_json_is_refused(checkpoint, monkeypatch):
    engine = StreamingEngine.from_checkpoint(checkpoint)
    memory = filled(engine)
    monkeypatch.setitem(sys.modules, 'llguidance', None)
    with pytest.raises(ValueError, match='needs llguidance: pip install llguidance'):
        ask(engine, memory, SCHEMAS['enum'])
    assert finished(engine.ask(memory, 'what?', Sampling(max_tokens=3))).tokens == 3
    monkeypatch.undo()
    assert finished(ask(engine, memory, SCHEMAS['enum'])).finish == 'end'


@pytest.mark.parametrize('characters', ['{', '0123456789', 'q"'])
def test_a_tokenizer_that_cannot_write_json_is_refused_at_once(folder, characters):
    file = folder / 'tokenizer.json'
    spec = json.loads(file.read_text())
    for i, character in enumerate(characters):
        vocab = spec['model']['vocab']
        vocab['Ġ' * (i + 5)] = vocab.pop(character)
    file.write_text(json.dumps(spec))
    engine = StreamingEngine.from_checkpoint(folder)
    missing = ''.join(sorted(characters))
    with pytest.raises(ValueError, match=f"needs a token for each byte .* none for b'{missing}'"):
        ask(engine, filled(engine), SCHEMAS['enum'])
    assert len(engine._free) == 2


def test_a_network_with_more_tokens_than_its_tokenizer(engine):
    spec, size = engine.prompt.tokenizer_json(), engine.weights.config.vocab_size
    matcher = JsonGrammar(spec, size + 1000, engine.weights.config.eos_token_ids).begin('{}')
    mask = matcher.mask()
    assert mask.shape == (size + 1000,)
    assert mask[size:].all()
    assert not mask.all()


def test_only_an_end_token_follows_the_whole(engine):
    """Each of them, if the checkpoint has several."""
    spec, size = engine.prompt.tokenizer_json(), engine.weights.config.vocab_size
    ends = [engine.prompt._control.token_to_id(f'<|{name}|>') for name in ('endoftext', 'im_end')]
    matcher = JsonGrammar(spec, size, ends).begin('{"const": 7}')
    (seven,) = engine.prompt.encode('7')
    assert torch.equal((~matcher.mask()).nonzero()[:, 0], torch.tensor([seven]))
    assert not matcher.complete
    matcher.accept(seven)
    assert matcher.complete
    assert (~matcher.mask()).nonzero()[:, 0].tolist() == sorted(ends)
    with pytest.raises(GrammarError, match='llguidance: parser stopped'):
        matcher.accept(seven)


def test_the_memory_and_free_answers_never_learn_of_it(model):
    memory = filled(model)
    before = {name: t.clone() for name, t in memory.state.tensors.items()}
    free = Sampling(max_tokens=15, temperature=1.0, seed=4)
    wanted = finished(model.ask(memory, 'what?', free)).token_ids
    # Token by token beside an answer in JSON.
    answers = [model.ask(memory, 'what?', free), ask(model, memory, SCHEMAS['nested'])]
    while not all(answer.finish for answer in answers):
        for answer in answers:
            answer.step()
    assert answers[0].token_ids == wanted
    assert answers[1].finish == 'end'
    assert answers[1].text == finished(ask(model, memory, SCHEMAS['nested'])).text
    assert all(torch.equal(t, before[name]) for name, t in memory.state.tensors.items())


def test_a_runner_that_works_ahead_waits_for_every_token_of_json(engine, monkeypatch):
    """As a GPU's does, which draws the next token before the host has seen the one before."""
    memory, drawn = filled(engine), {'temperature': 1.0, 'seed': 6}
    wanted = finished(ask(engine, memory, SCHEMAS['nested'], **drawn)).token_ids
    monkeypatch.setattr(engine._runner, 'lookahead', 1)
    assert finished(ask(engine, memory, SCHEMAS['nested'], **drawn)).token_ids == wanted


NAMES = st.text(st.characters(codec='utf-8'), max_size=6)
VALUES = st.recursive(
    st.one_of(
        NAMES,
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        # llguidance may miss the last place of what has 16 digits or more.
        st.integers(-(10**9), 10**9).map(lambda number: number / 10**4),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=3), st.dictionaries(NAMES, values, max_size=3)
    ),
    max_leaves=4,
)


def _objects(schemas):
    return st.dictionaries(NAMES, schemas, max_size=3).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties) or [''])).map(
            lambda wanted: {**record(**properties), 'required': sorted(wanted & {*properties})}
        )
    )


def _arrays(schemas):
    return st.tuples(schemas, st.integers(0, 2), st.integers(2, 3)).map(
        lambda a: {'type': 'array', 'items': a[0], 'minItems': a[1], 'maxItems': a[2]}
    )


@settings(deadline=None, max_examples=200)
@given(
    schema=st.recursive(
        st.one_of(
            st.sampled_from([{'type': 'boolean'}, {'type': 'null'}]),
            st.tuples(st.integers(-(10**6), 0), st.integers(0, 10**6)).map(
                lambda ends: {'type': 'integer', 'minimum': ends[0], 'maximum': ends[1]}
            ),
            st.integers(0, 6).map(lambda most: {'type': 'string', 'maxLength': most}),
            st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {'enum': values}),
        ),
        lambda schemas: st.one_of(_objects(schemas), _arrays(schemas)),
        max_leaves=5,
    ),
    seed=st.integers(0, 2**32),
)
def test_whatever_is_drawn_fits(engine, schema, seed):
    """Any tokens that the masks let through, one as likely as the other."""
    ends, choose = engine.weights.config.eos_token_ids, random.Random(seed)
    matcher = engine._grammar.begin(json.dumps(schema))
    tokens = []
    while not matcher.complete:
        token = choose.choice((~matcher.mask()).nonzero()[:, 0].tolist())
        matcher.accept(token)
        if token not in ends:
            tokens.append(token)
    jsonschema.validate(json.loads(engine.prompt.decode(tokens)), schema)
