"""Checkpoint folders as they occur, and as they should never be accepted."""

import json
import pickle
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from infinitevl_ros.model import decoder
from infinitevl_ros.model.checkpoint import load_checkpoint
from infinitevl_ros.model.config import DELTA, SLIDING, CheckpointError
from infinitevl_ros.model.state import StreamState


class Folder:
    """A copy of the golden checkpoint to damage."""

    def __init__(self, path):
        self.path = path
        self.weights = path / 'model.safetensors'

    @property
    def tensors(self):
        return load_file(self.weights)

    def save(self, tensors):
        save_file(tensors, self.weights)

    def edit_config(self, **changes):
        file = self.path / 'config.json'
        values = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    def shard(self):
        """Two files and an index, as large checkpoints come."""
        tensors = self.tensors
        names = sorted(tensors)
        parts = {'model-00001-of-00002': names[::2], 'model-00002-of-00002': names[1::2]}
        for file, part in parts.items():
            save_file({n: tensors[n] for n in part}, self.path / f'{file}.safetensors')
        weight_map = {n: f'{file}.safetensors' for file, part in parts.items() for n in part}
        index = self.path / 'model.safetensors.index.json'
        index.write_text(json.dumps({'weight_map': weight_map}))
        self.weights.unlink()

    def error(self):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(self.path)
        return str(caught.value)


@pytest.fixture
def folder(golden, tmp_path):
    for name in ('config.json', 'model.safetensors'):
        shutil.copy(golden / 'tiny' / name, tmp_path)
    return Folder(tmp_path)


def same(first, second):
    assert first.fingerprint == second.fingerprint
    torch.testing.assert_close(first.vision.patch, second.vision.patch, rtol=0, atol=0)
    for one, other in zip(first.layers, second.layers, strict=True):
        for part in ('mixer', 'mlp'):
            tensors = vars(getattr(one, part)).items()
            for name, tensor in tensors:
                if tensor is not None:
                    assert torch.equal(tensor, getattr(getattr(other, part), name))
    return True


def respell(tensors):
    """The names newer transformers give."""

    def name(old):
        if old.startswith('visual.'):
            return f'model.{old}'
        return old.replace('model.', 'model.language_model.', 1)

    return {name(old): t for old, t in tensors.items()}


def test_both_spellings(folder, golden):
    folder.save(respell(folder.tensors))
    assert 'model.visual.merger.ln_q.weight' in folder.tensors
    assert same(load_checkpoint(folder.path), load_checkpoint(golden / 'tiny'))


def test_sharded(folder, golden):
    folder.shard()
    assert same(load_checkpoint(folder.path), load_checkpoint(golden / 'tiny'))


def test_bfloat16_on_disk(folder):
    wanted = {name: t.bfloat16() for name, t in folder.tensors.items()}
    folder.save(wanted)
    found = load_checkpoint(folder.path)
    assert found.dtype == torch.float32
    assert torch.equal(found.embed, wanted['model.embed_tokens.weight'].float())
    assert load_checkpoint(folder.path, dtype=torch.bfloat16).embed.dtype == torch.bfloat16


def test_text_sizes_may_be_nested(folder, golden):
    file = folder.path / 'config.json'
    values = json.loads(file.read_text())
    text = {name: values.pop(name) for name in ('hidden_size', 'rope_scaling', 'vocab_size')}
    file.write_text(json.dumps({**values, 'text_config': text}))
    assert same(load_checkpoint(folder.path), load_checkpoint(golden / 'tiny'))


def test_tied_head_is_the_embedding(folder):
    tensors = folder.tensors
    folder.save({**tensors, 'lm_head.weight': torch.randn(640, 64)})
    weights = load_checkpoint(folder.path)
    assert weights.head is weights.embed


def test_untied_head(folder):
    folder.edit_config(tie_word_embeddings=False)
    assert 'lm_head.weight [640, 64]' in folder.error()
    head = torch.randn(640, 64)
    folder.save({**folder.tensors, 'lm_head.weight': head})
    assert torch.equal(load_checkpoint(folder.path).head, head)


def test_layer_types_default_to_blocks_of_four(folder):
    types = load_checkpoint(folder.path).config.layer_types
    assert types == (SLIDING, DELTA, DELTA, DELTA) * 2
    folder.edit_config(layer_types=list(types))
    assert load_checkpoint(folder.path).config.layer_types == types


def test_unknown_layer_type(folder):
    folder.edit_config(layer_types=['mamba'] + [DELTA] * 7)
    message = folder.error()
    assert 'config.json' in message
    assert "['mamba']" in message
    assert SLIDING in message


def test_too_few_layer_types(folder):
    folder.edit_config(layer_types=[SLIDING, DELTA])
    assert '2 layer_types for 8 layers' in folder.error()


def test_layer_types_that_the_tensors_contradict(folder):
    folder.edit_config(layer_types=[SLIDING] * 8)
    assert 'has no place in the network' in folder.error()


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        ('hidden_size', None, 'hidden_size'),
        ('vision_config', None, 'vision_config'),
        ('rope_scaling', None, 'mrope_section'),
        ('num_key_value_heads', 3, '4 attention heads'),
        ('num_linear_key_value_heads', 2, 'num_linear_key_value_heads'),
        ('sliding_window', 0, 'sliding_window is 0'),
        ('num_key_value_heads', 0, 'num_key_value_heads is 0'),
        ('hidden_size', 'wide', "hidden_size is 'wide', expected a whole number"),
        ('hidden_size', 64.5, 'hidden_size is 64.5, expected a whole number'),
        ('layer_types', True, 'layer_types is True, expected a list of names'),
        ('rope_scaling', 'x', "rope_scaling is 'x', expected an object"),
        ('text_config', [1], 'text_config is [1], expected an object'),
        ('rope_scaling', {'type': 'yarn', 'mrope_section': [2, 3, 3]}, 'rope type yarn'),
        ('hidden_act', 'gelu', 'hidden_act gelu'),
        ('use_gate', False, 'use_gate false'),
        ('image_token_id', 10**9, 'image_token_id 1000000000 is not in the vocabulary'),
        ('eos_token_id', ['a'], "eos_token_ids is ['a']"),
        ('eos_token_id', None, 'no value for eos_token_id'),
        ('num_hidden_layers', None, 'num_hidden_layers'),
        ('image_token_id', None, 'image_token_id'),
    ],
)
def test_config_faults_name_the_field(folder, field, value, said):
    folder.edit_config(**{field: value})
    message = folder.error()
    assert 'config.json' in message
    assert said in message


def test_numbers_may_be_written_as_fractions_and_nulls_left_to_defaults(folder, golden):
    file = folder.path / 'config.json'
    values = json.loads(file.read_text())
    values |= {'expand_v': 2.0, 'conv_size': 4.0, 'text_config': None, 'layer_types': None}
    values['vision_config']['tokens_per_second'] = 2.0
    rope = values.pop('rope_scaling')
    values['rope_parameters'] = {**rope, 'rope_theta': values.pop('rope_theta')}
    file.write_text(json.dumps(values))
    config = load_checkpoint(folder.path).config
    assert config == load_checkpoint(golden / 'tiny').config
    assert isinstance(config.expand_v, int)


def test_more_tokens_may_end_an_answer(folder):
    file = folder.path / 'generation_config.json'
    file.write_text(json.dumps({'eos_token_id': [602, 600]}))
    assert load_checkpoint(folder.path).config.eos_token_ids == (602, 600)


def test_decay_parameters_stay_float32(folder):
    wanted = folder.tensors
    mixer = load_checkpoint(folder.path, dtype=torch.bfloat16).layers[1].mixer
    assert torch.equal(mixer.a_log, wanted['model.layers.1.self_attn.A_log'])
    assert torch.equal(mixer.dt_bias, wanted['model.layers.1.self_attn.dt_bias'])
    assert mixer.proj.dtype == torch.bfloat16


def test_files_that_are_not_part_of_the_model(folder, golden):
    save_file({'x': torch.ones(1)}, folder.path / 'model_adapter.safetensors')
    save_file({'x': torch.ones(1)}, folder.path / 'consolidated.safetensors')
    frequencies = {'model.layers.0.self_attn.rotary_emb.inv_freq': torch.ones(8)}
    folder.save({**folder.tensors, **frequencies})
    assert same(load_checkpoint(folder.path), load_checkpoint(golden / 'tiny'))


def test_an_untied_head_gives_the_scores(folder):
    folder.edit_config(tie_word_embeddings=False)
    head = torch.randn(640, 64)
    folder.save({**folder.tensors, 'lm_head.weight': head})
    hidden = torch.randn(1, 3, 64)
    found = decoder.logits(load_checkpoint(folder.path), hidden)
    torch.testing.assert_close(found, hidden @ head.T)


def test_full_attention_is_read_but_cannot_stream(folder):
    types = ['full_attention' if i % 4 == 0 else DELTA for i in range(8)]
    folder.edit_config(layer_types=types)
    config = load_checkpoint(folder.path).config
    with pytest.raises(CheckpointError, match='memory grows without end'):
        StreamState(config, 36)


def test_index_with_something_else_than_names(folder):
    folder.shard()
    index = folder.path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': {'x': 5}}))
    assert 'expected the name of a file' in folder.error()


def test_missing_tensor(folder):
    tensors = folder.tensors
    del tensors['model.layers.3.self_attn.A_log']
    folder.save(tensors)
    message = folder.error()
    assert 'model.layers.3.self_attn.A_log [4]' in message
    assert '1 tensors are missing' in message


def test_wrong_shape(folder):
    folder.save({**folder.tensors, 'model.norm.weight': torch.ones(65)})
    message = folder.error()
    assert 'model.safetensors: tensor model.norm.weight has shape [65], expected [64]' in message


def test_wrong_type(folder):
    folder.save({**folder.tensors, 'model.norm.weight': torch.ones(64, dtype=torch.int32)})
    assert 'model.norm.weight is torch.int32, expected a floating type of 16' in folder.error()


def test_unknown_tensor(folder):
    folder.save({**folder.tensors, 'model.layers.0.self_attn.q_norm.weight': torch.ones(16)})
    assert 'q_norm.weight has no place in the network' in folder.error()


def test_the_same_tensor_in_both_spellings(folder):
    tensors = folder.tensors
    twice = {'model.visual.merger.ln_q.weight': tensors['visual.merger.ln_q.weight'].clone()}
    folder.save({**tensors, **twice})
    assert 'visual.merger.ln_q.weight occurs a second time' in folder.error()


def test_missing_shard(folder):
    folder.shard()
    (folder.path / 'model-00002-of-00002.safetensors').unlink()
    assert 'model-00002-of-00002.safetensors, which is not in the folder' in folder.error()


def test_a_shard_outside_the_folder(folder):
    folder.shard()
    index = folder.path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': {'x': '../../etc/weights.safetensors'}}))
    assert 'not in the folder' in folder.error()


def test_no_weights(folder):
    folder.weights.unlink()
    assert 'no *.safetensors file' in folder.error()


def test_a_pickle_is_refused_unread(folder):
    class Bomb:
        def __reduce__(self):
            return (folder.weights.write_text, ('it ran',))

    (folder.path / 'pytorch_model.bin').write_bytes(pickle.dumps(Bomb()))
    folder.weights.unlink()
    assert 'pytorch_model.bin: a pickle' in folder.error()
    assert not folder.weights.exists()


def test_a_pickle_named_safetensors(folder):
    folder.weights.write_bytes(pickle.dumps({'model.norm.weight': [1.0]}))
    assert 'model.safetensors: not a readable safetensors file' in folder.error()


@settings(deadline=None, max_examples=30)
@given(data=st.binary(max_size=200))
def test_any_bytes_as_weights(tmp_path_factory, golden, data):
    path = tmp_path_factory.mktemp('bytes')
    shutil.copy(golden / 'tiny' / 'config.json', path)
    (path / 'model.safetensors').write_bytes(data)
    assert 'model.safetensors' in Folder(path).error() or data[8:].strip() == b'{}'


def test_a_truncated_file(folder):
    data = folder.weights.read_bytes()
    folder.weights.write_bytes(data[: len(data) // 2])
    assert 'not a readable safetensors file' in folder.error()


def test_no_folder_no_config_bad_json(folder):
    (folder.path / 'config.json').write_text('{"hidden_size": ')
    assert 'config.json: not readable as JSON' in folder.error()
    (folder.path / 'config.json').write_text('[1]')
    assert 'expected a JSON object, found list' in folder.error()
    (folder.path / 'config.json').unlink()
    assert 'config.json: missing' in folder.error()
    shutil.rmtree(folder.path)
    assert 'no such checkpoint folder' in folder.error()


def test_fingerprints_tell_checkpoints_apart(folder):
    before = load_checkpoint(folder.path)
    assert load_checkpoint(folder.path, dtype=torch.bfloat16).fingerprint == before.fingerprint
    tensors = folder.tensors
    tensors['model.layers.7.mlp.up_proj.weight'][-1, -1] += 0.5
    folder.save(tensors)
    assert load_checkpoint(folder.path).fingerprint != before.fingerprint
