"""Tools that people run over a file afterwards do not undo its tie."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.rooms.onnx.models import IDS_SEEN, language_model, numbers, run, save
from tiesurgeon.rooms.onnx.projection import HEADS, Head
from tiesurgeon.rooms.onnx.read import read

Optimise = Callable[[str, Path, Path], None]

# The matrix must be large enough to be worth folding: optimisers leave tiny constants alone.
ROWS, WIDTH = 997, 61

SCRIPTS = {
    "onnxslim": "import onnxslim, onnx; onnx.save(onnxslim.slim(a), b)",
    "onnxsim": "import onnxsim, onnx; onnx.save(onnxsim.simplify(a)[0], b)",
    "onnxruntime": (
        "import onnxruntime as ort; o = ort.SessionOptions(); o.optimized_model_filepath = b;"
        "o.log_severity_level = 4;"
        "o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED;"
        "ort.InferenceSession(a, o, providers=['CPUExecutionProvider'])"
    ),
}
# Beside what is installed here: the two tools, and what onnxslim needs.
WHEELS = ("onnxslim==0.1.98", "onnxsim==0.8.1", "colorama==0.4.6", "sympy", "mpmath")


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnxslim and onnxsim, which are no dependency of anything here."""
    folder = tmp_path_factory.mktemp("tools")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "-t", str(folder)]
    done = subprocess.run([*command, *WHEELS], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("onnxslim and onnxsim could not be downloaded")
    return folder


def optimise(tool: str, before: Path, after: Path, tools: Path | None = None) -> None:
    code = f"import sys; a, b = sys.argv[1:]; {SCRIPTS[tool]}"
    path = {} if tools is None else {"PYTHONPATH": str(tools)}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(before), str(after)],
        check=True,
        capture_output=True,
        env={**os.environ, **path},
    )


def large_model() -> onnx.ModelProto:
    made = language_model()
    table = numbers(ROWS, WIDTH)
    arrays = {
        "embed.weight": table,
        "onnx::MatMul_9": np.ascontiguousarray(table.T),
        "head.bias": numbers(ROWS, seed=2),
    }
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    made.graph.output[0].type.tensor_type.shape.dim[2].dim_value = ROWS
    return made


def matrices(path: Path) -> int:
    """How many tensors of the matrix's size a file holds."""
    found = onnx.load(path)
    stored = [numpy_helper.to_array(tensor).size for tensor in found.graph.initializer]
    stored += [
        numpy_helper.to_array(attribute.t).size
        for node in found.graph.node
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    return stored.count(ROWS * WIDTH)


def stays_tied(tool: str, head: Head, folder: Path, tools: Path | None) -> None:
    before, tied, after = folder / "m.onnx", folder / "tied.onnx", folder / "after.onnx"
    save(large_model(), before)
    document = read(before).document
    document.head = head
    document.tie("/embed/Gather/data", "/head/MatMul/B", (1, 0))
    document.write(tied, {})

    optimise(tool, tied, after, tools)
    assert (matrices(before), matrices(tied), matrices(after)) == (2, 1, 1)
    np.testing.assert_allclose(
        run(after, IDS_SEEN)[0], run(before, IDS_SEEN)[0], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("head", HEADS)
def test_onnxruntime_keeps_the_tie(tmp_path: Path, head: Head) -> None:
    stays_tied("onnxruntime", head, tmp_path, None)


@pytest.mark.real
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tool", ["onnxslim", "onnxsim"])
def test_optimisers_keep_the_tie(tmp_path: Path, tools: Path, tool: str, head: Head) -> None:
    stays_tied(tool, head, tmp_path, tools)


def test_a_tie_through_a_transpose_would_not_have_lasted(tmp_path: Path) -> None:
    """What makes the tests above worth something: the plain form is undone."""
    made = large_model()
    [copy] = [tensor for tensor in made.graph.initializer if tensor.name == "onnx::MatMul_9"]
    made.graph.initializer.remove(copy)
    made.graph.node.insert(0, onnx.helper.make_node("Transpose", ["embed.weight"], ["T"]))
    [product] = [node for node in made.graph.node if node.op_type == "MatMul"]
    product.input[1] = "T"
    before, after = save(made, tmp_path / "m.onnx"), tmp_path / "after.onnx"
    optimise("onnxruntime", before, after)
    assert (matrices(before), matrices(after)) == (1, 2)
