"""No kernel reads what the one before it may still be writing: by the source, without a GPU."""

import ast
from pathlib import Path

import pytest

import infinitevl_ros.model.kernels

SOURCES = sorted(Path(infinitevl_ros.model.kernels.__file__).parent.glob('gpu/*.py'))


def launched(tree):
    """Names of the kernels that a file launches, through `launch` or by itself."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    through = [
        c.args[0].id for c in calls if isinstance(c.func, ast.Name) and c.func.id == 'launch'
    ]
    return through, [ast.unparse(c) for c in calls if isinstance(c.func, ast.Subscript)]


@pytest.mark.parametrize('file', SOURCES, ids=lambda file: file.stem)
def test_a_kernel_that_comes_early_waits_first_of_all(file):
    tree = ast.parse(file.read_text())
    through, alone = launched(tree)
    # Only `launch` itself launches in the other way.
    assert len(alone) == (file.stem == 'launch'), alone
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name in through:
        body = functions[name].body
        first = body[isinstance(body[0].value, ast.Constant)]
        assert ast.unparse(first) == 'await_previous(EARLY)', name


def test_the_kernels_are_found():
    found = [name for file in SOURCES for name in launched(ast.parse(file.read_text()))[0]]
    assert {'_rms_norm', '_fp8_product', '_scan_chunks', '_ring_attention'} <= set(found)
    assert len(found) == len(set(found))
