"""A proof that accepts everything proves nothing: what is wrong must fail it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.rooms.onnx.models import (
    FLOAT,
    IDS_SEEN,
    V,
    language_model,
    numbers,
    save,
    value,
)
from tiesurgeon import edits
from tiesurgeon.errors import ProofFailed
from tiesurgeon.graph import Graph
from tiesurgeon.model import Change, Step
from tiesurgeon.names import resolve
from tiesurgeon.rooms.onnx import proof_script
from tiesurgeon.rooms.onnx.check import check_written
from tiesurgeon.rooms.onnx.document import OnnxDocument
from tiesurgeon.rooms.onnx.read import read
from tiesurgeon.rooms.onnx.run import judge_change

STEP = Step("/embed/Gather/data", "/head/MatMul/B", (1, 0))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return save(language_model(), tmp_path / "before.onnx")


def tied_graph(graph: Graph) -> Graph:
    one, other = (resolve(graph, name).view for name in (STEP.source, STEP.target))
    assert one is not None
    assert other is not None
    return edits.tie(graph, one.variable, other.variable, (1, 0))


def tied(before: Path) -> tuple[OnnxDocument, Graph, Path]:
    found = read(before)
    found.document.tie(STEP.source, STEP.target, STEP.perm)
    path = before.with_name("after.onnx")
    found.document.write(path, {})
    return found.document, tied_graph(found.graph), path


def edited(path: Path, change: object) -> None:
    made = onnx.load(path)
    change(made)  # type: ignore[operator]
    onnx.save_model(made, path)


def test_what_was_meant_passes(before: Path) -> None:
    document, meant, path = tied(before)
    assert check_written(meant, document, path) == ()
    result = judge_change(
        before, path, Change(read(before).graph, meant, {}, (STEP,)), document, None
    )
    assert (result.proof.poke, result.proof.step) == (True, None)
    assert result.proof.max_abs_diff is not None


def untied_copy(made: onnx.ModelProto) -> None:
    """Equal outputs, and two matrices again."""
    [gemm] = [node for node in made.graph.node if node.op_type == "Gemm"]
    copy = numpy_helper.from_array(numbers(V, 3), "copy")
    made.graph.initializer.append(copy)
    gemm.input[1] = "copy"


def other_numbers(made: onnx.ModelProto) -> None:
    [bias] = [tensor for tensor in made.graph.initializer if tensor.name == "head.bias"]
    bias.CopyFrom(numpy_helper.from_array(numbers(V, seed=7), "head.bias"))


def other_output(made: onnx.ModelProto) -> None:
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2


def other_opset(made: onnx.ModelProto) -> None:
    made.opset_import[0].version = 18


def wrong_attribute(made: onnx.ModelProto) -> None:
    [gemm] = [node for node in made.graph.node if node.op_type == "Gemm"]
    gemm.attribute.add(name="alpa", f=2.0, type=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (untied_copy, "are tied otherwise"),
        (other_numbers, "holds other numbers"),
        (other_output, "the output of its graph is another"),
        (other_opset, "opset_import is another"),
        (wrong_attribute, r"onnx\.checker refuses"),
    ],
)
def test_a_file_that_is_not_what_was_meant_fails(before: Path, change: object, reason: str) -> None:
    document, meant, path = tied(before)
    edited(path, change)
    with pytest.raises(ProofFailed, match=reason):
        check_written(meant, document, path)


def judged(before: Path, change: object) -> None:
    document, meant, path = tied(before)
    edited(path, change)
    judge_change(before, path, Change(read(before).graph, meant, {}, (STEP,)), document, None)


def test_an_untied_copy_is_found_out_by_the_poke(before: Path) -> None:
    with pytest.raises(ProofFailed, match="does not show at both"):
        judged(before, untied_copy)


def test_other_outputs_are_found_out(before: Path) -> None:
    with pytest.raises(ProofFailed, match="outputs that differ"):
        judged(before, other_numbers)


def test_an_end_that_shows_in_no_output_is_not_called_poked(before: Path) -> None:
    made = onnx.load(before)
    del made.graph.output[:]
    made.graph.output.append(value("hidden", FLOAT, "batch", "time", 3))
    onnx.save_model(made, before)
    document, meant, path = tied(before)
    result = judge_change(
        before, path, Change(read(before).graph, meant, {}, (STEP,)), document, None
    )
    assert result.proof.poke is None
    assert any("shows in no output" in word for word in result.warnings)


def test_the_users_own_inputs_are_taken(before: Path) -> None:
    document, meant, path = tied(before)
    examples = before.with_name("inputs.npz")
    np.savez(examples, wrong=IDS_SEEN)
    change = Change(read(before).graph, meant, {}, (STEP,))
    with pytest.raises(ProofFailed, match="could not be run"):
        judge_change(before, path, change, document, examples)
    np.savez(examples, ids=IDS_SEEN)
    assert judge_change(before, path, change, document, examples).proof.poke is True


def test_shapes_and_nan_count_as_differences() -> None:
    one = np.array([1.0, np.nan])
    assert proof_script.difference([one], [one]) == 0
    assert proof_script.difference([one], [np.array([1.0, 2.0])]) == np.inf
    assert proof_script.difference([one], [one[:1]]) == np.inf
    assert proof_script.difference([np.array([1])], [np.array([3])]) == 2
