"""Saving and loading what a stream remembers."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from test_engine import SECOND, bits, filled, frame, unchanged

from infinitevl_ros.cli.random_checkpoint import write_random_checkpoint
from infinitevl_ros.engine import MemoryFileError, Options, Sampling, StreamingEngine, snapshot


def test_a_loaded_memory_goes_on_as_the_saved_one(engine, tmp_path):
    memory = filled(engine, 40)
    memory.save(tmp_path / 'kitchen.safetensors')
    other = engine.new_memory()
    other.load(tmp_path / 'kitchen.safetensors')
    assert unchanged(other, bits(memory))
    assert other.describe() == memory.describe()
    for m in (memory, other):
        engine.ingest(m, frame(7), 30 * SECOND)
    assert unchanged(other, bits(memory))
    texts = {''.join(engine.ask(m, 'what?', Sampling(max_tokens=10))) for m in (memory, other)}
    assert len(texts) == 1


def test_an_empty_memory_can_be_saved(engine, tmp_path):
    engine.new_memory().save(tmp_path / 'empty')
    memory = filled(engine, 2)
    memory.load(tmp_path / 'empty')
    assert memory.describe() == engine.new_memory().describe()


def test_another_model_is_refused_by_name(engine, tmp_path):
    other = write_random_checkpoint(tmp_path / 'other', seed=2)
    memory = filled(StreamingEngine.from_checkpoint(other), 2)
    memory.save(tmp_path / 'file')
    mine = filled(engine, 3)
    before = bits(mine)
    with pytest.raises(MemoryFileError, match=r'model other .*loaded is random'):
        mine.load(tmp_path / 'file')
    assert unchanged(mine, before)
    assert mine.frames == 3


def test_another_frame_size_is_refused(engine, checkpoint, tmp_path):
    other = StreamingEngine.from_checkpoint(checkpoint, frame_size=(56, 56))
    filled(other, 1).save(tmp_path / 'file')
    with pytest.raises(MemoryFileError, match='frames of 56 x 56 pixels; this engine takes 112'):
        engine.new_memory().load(tmp_path / 'file')
    half = StreamingEngine.from_checkpoint(checkpoint, dtype=torch.bfloat16)
    filled(half, 1).save(tmp_path / 'file')
    with pytest.raises(MemoryFileError, match='another dtype'):
        engine.new_memory().load(tmp_path / 'file')


def test_saving_into_a_folder_that_is_not_there(engine, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        filled(engine, 1).save(tmp_path / 'nowhere' / 'file')


def test_files_that_are_something_else(engine, checkpoint, tmp_path):
    memory = filled(engine, 1)
    with pytest.raises(MemoryFileError, match='no such file'):
        memory.load(tmp_path / 'nothing')
    with pytest.raises(MemoryFileError, match='not a saved visual memory'):
        memory.load(checkpoint / 'model.safetensors')
    memory.save(tmp_path / 'file')
    half = (tmp_path / 'file').read_bytes()[:1000]
    (tmp_path / 'half').write_bytes(half)
    with pytest.raises(MemoryFileError, match='not a readable memory'):
        memory.load(tmp_path / 'half')


def resave(path, edit_metadata=None, edit_tensors=None):
    from safetensors import safe_open

    with safe_open(path, 'pt') as file:
        metadata = file.metadata()
    tensors = load_file(path)
    (edit_metadata or (lambda m: None))(metadata)
    (edit_tensors or (lambda t: None))(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ('metadata', 'tensors', 'said'),
    [
        (lambda m: m.update(version='99'), None, 'version 99'),
        (lambda m: m.update(frames='many'), None, 'broken metadata'),
        (lambda m: m.pop('frames'), None, 'broken metadata'),
        (lambda m: m.update(frames='-1'), None, 'broken metadata: frames is -1'),
        (lambda m: m.update(elapsed='7' * 5000), None, 'broken metadata: elapsed is 777'),
        (lambda m: m.update(newest_stamp=str(2**62)), None, 'broken metadata: newest_stamp'),
        (lambda m: m.pop('first_stamp'), None, 'first_stamp is missing'),
        (lambda m: m.update(stream='other'), None, 'a stream with other; this engine has prompt'),
        (None, lambda t: t.pop('layers.1.conv'), r'tensors differ.*layers\.1\.conv'),
        (None, lambda t: t.update({'time': torch.zeros(2)}), 'time is'),
    ],
)
def test_damaged_files_are_refused_and_nothing_changes(engine, tmp_path, metadata, tensors, said):
    filled(engine, 4).save(tmp_path / 'file')
    resave(tmp_path / 'file', metadata, tensors)
    memory = filled(engine, 2)
    before = bits(memory)
    with pytest.raises(MemoryFileError, match=said):
        memory.load(tmp_path / 'file')
    assert unchanged(memory, before)
    assert memory.frames == 2


@settings(deadline=None, max_examples=40)
@given(data=st.binary(max_size=300))
def test_any_bytes(engine, tmp_path_factory, data):
    file = tmp_path_factory.mktemp('any') / 'file'
    file.write_bytes(data)
    with pytest.raises(MemoryFileError):
        engine.new_memory().load(file)


def test_a_disk_that_is_full_is_an_error_of_the_system(engine, tmp_path, monkeypatch):
    def full(_, path, __):
        Path(path).touch()
        raise SafetensorError('I/O error: File too large')

    monkeypatch.setattr(snapshot, 'save_file', full)
    with pytest.raises(OSError, match='file: I/O error: File too large'):
        filled(engine, 1).save(tmp_path / 'file')
    assert list(tmp_path.iterdir()) == []


def test_a_memory_does_not_fit_an_engine_of_other_settings(engine, checkpoint, tmp_path):
    filled(engine, 2).save(tmp_path / 'file')
    options = Options(prompt_layout='published')
    other = StreamingEngine.from_checkpoint(checkpoint, options=options).new_memory()
    with pytest.raises(MemoryFileError, match='; this engine has prompt_layout published'):
        other.load(tmp_path / 'file')


def test_a_frame_that_waits_is_not_counted_in_what_is_saved(checkpoint, tmp_path):
    engine = StreamingEngine.from_checkpoint(checkpoint, options=Options(frames_per_grid=2))
    for frames, saved in ((1, 0), (3, 2)):
        filled(engine, frames).save(tmp_path / 'file')
        memory = engine.new_memory()
        memory.load(tmp_path / 'file')
        assert memory.frames == saved
        assert (memory.newest_stamp is None) == (saved == 0)


def test_a_failed_save_leaves_the_old_file(engine, tmp_path, monkeypatch):
    file = tmp_path / 'file'
    filled(engine, 1).save(file)
    before = file.read_bytes()

    def full(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='disk full'):
        filled(engine, 2).save(file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['file']
