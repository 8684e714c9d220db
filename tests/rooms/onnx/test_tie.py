"""One initializer for two uses: what is written, what is kept, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.rooms.onnx.models import (
    FLOAT,
    IDS,
    IDS_SEEN,
    INT64,
    LOGITS,
    H,
    V,
    initializers,
    language_model,
    model,
    numbers,
    run,
    save,
    value,
)
from tiesurgeon import operations
from tiesurgeon.errors import OutputRefused, TieRefused
from tiesurgeon.find import ties
from tiesurgeon.outcome import Outcome
from tiesurgeon.rooms.onnx.projection import HEADS, Head
from tiesurgeon.rooms.onnx.read import read


def tied(made: onnx.ModelProto, folder: Path, *pair: str, outside: bool = False) -> Outcome:
    path = save(made, folder / "m.onnx", outside=outside)
    return operations.tie(path, [(pair[0], pair[1])], proof="static")


def written(outcome: Outcome) -> Path:
    assert outcome.output is not None
    return outcome.output


def by_document(made: onnx.ModelProto, folder: Path, head: Head = "gemm") -> tuple[Path, Path]:
    before, after = save(made, folder / "m.onnx"), folder / "m.tied.onnx"
    document = read(before).document
    document.head = head
    document.tie("/embed/Gather/data", "/head/MatMul/B", (1, 0))
    document.write(after, {})
    return before, after


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 21])
def test_a_tied_model_gives_what_it_gave(
    tmp_path: Path, opset: int, softmax: bool, bias: bool, head: Head
) -> None:
    axis = softmax and opset >= 13  # Softmax had another default, and another meaning, before
    made = language_model(opset=opset, bias=bias, softmax=axis)
    before, after = by_document(made, tmp_path, head)

    onnx.checker.check_model(after, full_check=True)
    assert "onnx::MatMul_9" not in initializers(after)
    np.testing.assert_allclose(run(after, IDS_SEEN)[0], run(before, IDS_SEEN)[0], rtol=1e-5)
    for shape in ((0, 5), (2, 0)) if opset >= 14 else ((0, 5),):  # Reshape could not, before
        assert run(after, np.zeros(shape, np.int64))[0].shape == (*shape, V)


@pytest.mark.parametrize("head", HEADS)
def test_the_one_matrix_moves_both_ends(tmp_path: Path, head: Head) -> None:
    before, after = by_document(language_model(), tmp_path, head)
    poked = numbers(V, H, seed=9)

    other, changed = onnx.load(before), onnx.load(after)
    for made in (other, changed):
        for tensor in made.graph.initializer:
            if tensor.name == "embed.weight":
                tensor.CopyFrom(numpy_helper.from_array(poked, tensor.name))
            elif tensor.name == "onnx::MatMul_9":
                turned = np.ascontiguousarray(poked.T)
                tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
    expected = run(other.SerializeToString(), IDS_SEEN)[0]
    np.testing.assert_allclose(
        run(changed.SerializeToString(), IDS_SEEN)[0], expected, rtol=1e-5, atol=1e-6
    )


def test_the_gemm_form_has_no_transpose_and_the_bias_in_it(tmp_path: Path) -> None:
    _, after = by_document(language_model(softmax=True), tmp_path)
    ops = [node.op_type for node in onnx.load(after).graph.node]
    assert ops == ["Gather", "Tanh", "Reshape", "Gemm", "Shape", "Concat", "Reshape", "Softmax"]
    [gemm] = [node for node in onnx.load(after).graph.node if node.op_type == "Gemm"]
    assert list(gemm.input)[1:] == ["embed.weight", "head.bias"]


def test_a_bias_that_makes_an_output_stays_after_the_reshape(tmp_path: Path) -> None:
    """ONNX Runtime would copy what a Reshape gives as an output."""
    _, after = by_document(language_model(), tmp_path)
    ops = [node.op_type for node in onnx.load(after).graph.node]
    assert ops[-2:] == ["Reshape", "Add"]


def test_two_axes_need_no_reshape(tmp_path: Path) -> None:
    made = language_model()
    made.graph.input[0].CopyFrom(value("ids", INT64, "batch"))
    made.graph.output[0].CopyFrom(value("logits", FLOAT, "batch", V))
    _, after = by_document(made, tmp_path)
    assert [node.op_type for node in onnx.load(after).graph.node] == ["Gather", "Tanh", "Gemm"]


def test_a_bias_that_is_used_elsewhere_too_is_added_after(tmp_path: Path) -> None:
    made = language_model(softmax=True)
    made.graph.output.append(value("product", FLOAT, "batch", "time", V))
    before, after = by_document(made, tmp_path)
    for one, other in zip(run(before, IDS_SEEN), run(after, IDS_SEEN), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_signature_and_metadata_are_kept_and_provenance_is_added(tmp_path: Path) -> None:
    made = language_model()
    made.metadata_props.add(key="author", value="someone")
    outcome = tied(made, tmp_path, "embed.weight", "onnx::MatMul_9")
    after = onnx.load(written(outcome))
    assert list(after.graph.input) == list(made.graph.input)
    assert list(after.graph.output) == list(made.graph.output)
    assert list(after.opset_import) == list(made.opset_import)
    metadata = {entry.key: entry.value for entry in after.metadata_props}
    assert metadata["author"] == "someone"
    assert json.loads(metadata["tiesurgeon"])["source"] == "m.onnx"


def test_the_tie_is_found_again(tmp_path: Path) -> None:
    outcome = tied(language_model(), tmp_path, "Gather", "MatMul")
    [tie] = ties(read(written(outcome)).graph)
    assert (tie.source, tie.target) == ("/embed/Gather/data", "/head/MatMul/B")


def test_external_data_is_written_under_the_outputs_name(tmp_path: Path) -> None:
    outcome = tied(language_model(), tmp_path, "Gather", "MatMul", outside=True)
    after = written(outcome)
    places = {
        entry.value
        for tensor in onnx.load(after, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert places == {"m.tied.onnx.data"}
    expected = run(tmp_path / "m.onnx", IDS_SEEN)[0]
    np.testing.assert_allclose(run(after, IDS_SEEN)[0], expected, rtol=1e-5)
    data = after.with_name("m.tied.onnx.data")
    assert outcome.bytes[1] == after.stat().st_size + data.stat().st_size
    with pytest.raises(OutputRefused, match=r"m\.tied\.onnx"):
        operations.tie(tmp_path / "m.onnx", [("Gather", "MatMul")], proof="static")


def test_the_inputs_own_data_is_never_written_to(tmp_path: Path) -> None:
    path = save(language_model(), tmp_path / "m.onnx", outside=True)
    before = (tmp_path / "m.onnx.data").read_bytes()
    path.rename(tmp_path / "other.onnx")
    with pytest.raises(OutputRefused, match="never changed"):
        operations.tie(tmp_path / "other.onnx", [("Gather", "MatMul")], output=path, force=True)
    assert (tmp_path / "m.onnx.data").read_bytes() == before


def test_a_gemm_over_the_same_shape_takes_the_table_as_it_is(tmp_path: Path) -> None:
    made = language_model(transposed=False)
    after = written(tied(made, tmp_path, "Gather", "Gemm"))
    assert sorted(initializers(after)) == ["embed.weight", "head.bias"]
    ids = IDS_SEEN[0]
    np.testing.assert_array_equal(run(after, ids)[0], run(tmp_path / "m.onnx", ids)[0])


def test_a_gemm_without_transb_is_flipped(tmp_path: Path) -> None:
    made = language_model(transposed=False)
    gemm = made.graph.node[2]
    del gemm.attribute[:]
    turned = np.ascontiguousarray(numbers(V, H).T)
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(turned, "head.weight"))
    after = written(tied(made, tmp_path, "Gather", "Gemm"))
    ids = IDS_SEEN[0]
    np.testing.assert_allclose(run(after, ids)[0], run(tmp_path / "m.onnx", ids)[0], rtol=1e-5)


def test_a_square_matrix_is_tied_the_way_round_that_the_graph_says(tmp_path: Path) -> None:
    square = numbers(V, V)
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "W"], ["logits"], name="head"),
    ]
    tensors = {"E": square, "W": np.ascontiguousarray(square.T)}
    after = written(tied(model(nodes, [IDS], [LOGITS], tensors), tmp_path, "look", "head"))
    expected = run(tmp_path / "m.onnx", IDS_SEEN)[0]
    np.testing.assert_allclose(run(after, IDS_SEEN)[0], expected, rtol=1e-4, atol=1e-5)


def test_different_values_need_a_method_which_both_ends_then_have(tmp_path: Path) -> None:
    path = save(language_model(tied_values=False), tmp_path / "m.onnx")
    with pytest.raises(TieRefused, match="--method"):
        operations.tie(path, [("Gather", "MatMul")])
    outcome = operations.tie(path, [("Gather", "MatMul")], method="mean")
    found = initializers(path)
    mean = (found["embed.weight"].astype("f8") + found["onnx::MatMul_9"].T) / 2
    shared = initializers(written(outcome))["embed.weight"]
    np.testing.assert_allclose(shared, mean, rtol=1e-6)
    assert outcome.proof.poke is True
    assert outcome.proof.max_abs_diff is not None
    assert any(line.startswith("damage") for line in outcome.lines)


def test_a_matrix_of_two_projections_is_rewritten_in_both(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "W"], ["logits"], name="one"),
        helper.make_node("Tanh", ["x"], ["z"]),
        helper.make_node("MatMul", ["z", "W"], ["more"], name="two"),
    ]
    tensors = {"E": numbers(V, H), "W": np.ascontiguousarray(numbers(V, H).T)}
    more = value("more", FLOAT, "batch", "time", V)
    after = written(tied(model(nodes, [IDS], [LOGITS, more], tensors), tmp_path, "look", "one"))
    assert "W" not in initializers(after)
    for a, b in zip(run(tmp_path / "m.onnx", IDS_SEEN), run(after, IDS_SEEN), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def twins(op: str, **given: Any) -> Callable[[], onnx.ModelProto]:
    """Two nodes of one kind over equal initializers."""

    def make() -> onnx.ModelProto:
        weight = numbers(*{"Conv": (5, 5, 3), "ConvTranspose": (5, 5, 3)}.get(op, (H, H)))
        shape = ["n", 5, 7] if weight.ndim == 3 else ["n", H]
        nodes = [
            helper.make_node(op, ["x", "one"], ["h"], name="first", **given),
            helper.make_node(op, ["h", "two"], ["y"], name="second", **given),
        ]
        ends = value("x", FLOAT, *shape), value("y", FLOAT, *shape)
        return model(nodes, ends[:1], ends[1:], {"one": weight, "two": weight.copy()})

    return make


@pytest.mark.parametrize(
    "make",
    [
        twins("MatMul"),
        twins("Gemm", transB=1),
        twins("Conv", pads=[1, 1]),
        twins("ConvTranspose", pads=[1, 1]),
    ],
    ids=["MatMul", "Gemm", "Conv", "ConvTranspose"],
)
def test_equal_initializers_become_one(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    path = save(make(), tmp_path / "m.onnx")
    outcome = operations.tie(path, duplicates=True)
    assert list(initializers(written(outcome))) == ["one"]
    assert outcome.proof.max_abs_diff == 0
    assert outcome.proof.poke is True


def test_three_equal_initializers_become_one(tmp_path: Path) -> None:
    weight = numbers(H, H)
    names = ["a", "b", "c"]
    nodes = [
        helper.make_node("MatMul", [f"x{at}", name], [f"x{at + 1}"], name=name.upper())
        for at, name in enumerate(names)
    ]
    ends = value("x0", FLOAT, "n", H), value("x3", FLOAT, "n", H)
    made = model(nodes, ends[:1], ends[1:], {name: weight.copy() for name in names})
    outcome = operations.tie(save(made, tmp_path / "m.onnx"), [("B", "C"), ("A", "B")])
    assert list(initializers(written(outcome))) == ["a"]
    assert outcome.proof.max_abs_diff == 0


def test_weights_of_constant_nodes_become_one_initializer(tmp_path: Path) -> None:
    table = numbers(V, H)
    turned = numpy_helper.from_array(np.ascontiguousarray(table.T))
    nodes = [
        helper.make_node("Constant", [], ["W"], value=turned, name="w"),
        helper.make_node("Constant", [], ["E"], value=numpy_helper.from_array(table), name="e"),
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "W"], ["logits"], name="head"),
    ]
    after = written(tied(model(nodes, [IDS], [LOGITS], {}), tmp_path, "look", "head"))
    assert "E" in initializers(after)
    assert "Constant" not in [node.op_type for node in onnx.load(after).graph.node]
    expected = run(tmp_path / "m.onnx", IDS_SEEN)[0]
    np.testing.assert_allclose(run(after, IDS_SEEN)[0], expected, rtol=1e-5)


def in_branches(*, source_inside: bool = False) -> onnx.ModelProto:
    """A projection in each branch of an If; `source_inside`: the table is in one of them too."""
    turned = np.ascontiguousarray(numbers(V, H).T)

    def branch(name: str) -> onnx.GraphProto:
        own = [numpy_helper.from_array(turned, f"{name}.W")]
        nodes = [helper.make_node("MatMul", ["x", f"{name}.W"], [f"{name}.y"], name="product")]
        outputs = [value(f"{name}.y", FLOAT, "batch", "time", V)]
        if source_inside and name == "yes":
            own.append(numpy_helper.from_array(numbers(V, H), "yes.E"))
            nodes = [
                helper.make_node("Gather", ["yes.E", "ids"], ["again"], name="look"),
                helper.make_node("MatMul", ["again", "yes.W"], ["yes.y"], name="product"),
            ]
        return helper.make_graph(nodes, name, [], outputs, own)

    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["x"], name="outer"),
        helper.make_node(
            "If", ["c"], ["logits"], name="if", then_branch=branch("yes"), else_branch=branch("no")
        ),
    ]
    table = numbers(V, H, seed=5) if source_inside else numbers(V, H)
    inputs = [IDS, value("c", TensorProto.BOOL)]
    return model(nodes, inputs, [LOGITS], {"E": table})


@pytest.mark.parametrize("source_inside", [False, True])
def test_subgraphs_take_a_matrix_of_the_main_graph(tmp_path: Path, source_inside: bool) -> None:
    path = save(in_branches(source_inside=source_inside), tmp_path / "m.onnx")
    source = "if/then_branch/look" if source_inside else "outer"
    pairs = [(source, f"if/{name}_branch/product") for name in ("then", "else")]
    after = written(operations.tie(path, pairs, proof="static"))
    if source_inside:
        assert "yes.E" in initializers(after)
    for choice in (True, False):
        given = IDS_SEEN, np.array(choice)
        np.testing.assert_allclose(run(after, *given)[0], run(path, *given)[0], rtol=1e-5)
    branches = [a.g for a in onnx.load(after).graph.node[1].attribute]
    assert not any(name.name.endswith(".W") for b in branches for name in b.initializer)


def test_an_initializer_that_was_an_input_too_goes_from_the_inputs(tmp_path: Path) -> None:
    made = language_model()
    made.graph.input.append(value("onnx::MatMul_9", FLOAT, H, V))
    outcome = tied(made, tmp_path, "Gather", "MatMul")
    assert [one.name for one in onnx.load(written(outcome)).graph.input] == ["ids"]
    assert any("'onnx::MatMul_9' was an input too" in word for word in outcome.warnings)


def test_nodes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    made = language_model(softmax=True)
    for node in made.graph.node:
        node.name = "same"
    path = save(made, tmp_path / "m.onnx")
    outcome = operations.tie(path, [("embed.weight", "onnx::MatMul_9")], proof="static")
    assert "onnx::MatMul_9" not in initializers(written(outcome))


def test_both_sides_in_external_data_on_the_same_bytes(tmp_path: Path) -> None:
    path = save(language_model(transposed=False), tmp_path / "m.onnx", outside=True)
    made = onnx.load(path, load_external_data=False)
    one, other = (t for t in made.graph.initializer if t.name in ("embed.weight", "head.weight"))
    del other.external_data[:]
    other.external_data.extend(one.external_data)
    onnx.save_model(made, path)
    outcome = operations.tie(path, [("Gather", "Gemm")])
    assert "head.weight" not in initializers(written(outcome))
    assert outcome.proof.poke is True


def in_training() -> onnx.ModelProto:
    made = language_model()
    made.training_info.add()
    return made


def in_function() -> onnx.ModelProto:
    body = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "Linear", ["x", "w"], ["y"], body, opsets)
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("Linear", ["x", "W"], ["logits"], name="head", domain="mine"),
    ]
    tensors = {"E": numbers(V, H), "W": np.ascontiguousarray(numbers(V, H).T)}
    own: dict[str, Any] = {"functions": [function], "opsets": [helper.make_opsetid("mine", 1)]}
    return model(nodes, [IDS], [LOGITS], tensors, **own)


def with_unknown_operator() -> onnx.ModelProto:
    made = language_model(bias=False)
    made.graph.node[2].domain, made.graph.node[2].op_type = "elsewhere", "Project"
    made.graph.node[2].name = "head"
    made.opset_import.append(helper.make_opsetid("elsewhere", 1))
    return made


def returned() -> onnx.ModelProto:
    made = language_model(bias=False)
    made.graph.output.append(value("onnx::MatMul_9", FLOAT, H, V))
    made.graph.node[2].name = "head"
    return made


def multiplied() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["look_up"], name="look"),
        helper.make_node("Mul", ["x", "W"], ["y"], name="head"),
    ]
    ends = value("x", FLOAT, H, V), value("y", FLOAT, H, V)
    tensors = {"E": numbers(V, H), "W": np.ascontiguousarray(numbers(V, H).T)}
    return model(nodes, [IDS, ends[0]], [ends[1]], tensors)


@pytest.mark.parametrize(
    ("make", "pair", "reason"),
    [
        (in_function, ("look", "head/product"), "inside a function"),
        (with_unknown_operator, ("Gather", "head"), r"elsewhere\.Project"),
        (returned, ("Gather", "head"), "an output of the model"),
        (multiplied, ("look", "head"), r"\(Mul\) cannot take 'E' transposed"),
        (in_training, ("Gather", "MatMul"), "how to train"),
        (lambda: language_model(opset=6), ("Gather", "MatMul"), "opset 6"),
    ],
)
def test_what_cannot_be_written_is_refused_and_changes_nothing(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], pair: tuple[str, str], reason: str
) -> None:
    path = save(make(), tmp_path / "m.onnx")
    with pytest.raises(TieRefused, match=reason):
        operations.tie(path, [pair], proof="static")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_untie_gives_back_the_name_and_the_numbers(tmp_path: Path) -> None:
    after = written(tied(language_model(), tmp_path, "Gather", "MatMul"))
    outcome = operations.untie(after)
    found = initializers(written(outcome))
    np.testing.assert_array_equal(found["onnx::MatMul_9"], found["embed.weight"])
    assert not ties(read(written(outcome)).graph)
    assert outcome.proof.max_abs_diff == 0


def test_untie_copies_what_turned_the_matrix_about(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["E"], ["T"], perm=[1, 0]),
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "T"], ["logits"], name="head"),
    ]
    path = save(model(nodes, [IDS], [LOGITS], {"E": numbers(V, H)}), tmp_path / "m.onnx")
    outcome = operations.untie(path, [("look", "head")])
    assert not ties(read(written(outcome)).graph)
    np.testing.assert_array_equal(run(written(outcome), IDS_SEEN)[0], run(path, IDS_SEEN)[0])


def test_a_tie_through_a_transpose_is_settled(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["E"], ["T"], perm=[1, 0]),
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "T"], ["logits"], name="head"),
    ]
    path = save(model(nodes, [IDS], [LOGITS], {"E": numbers(V, H)}), tmp_path / "m.onnx")
    found = read(path)
    assert any("optimisers fold" in note for note in found.notes)
    assert found.document.settle() == ("head/B",)
    found.document.write(tmp_path / "settled.onnx", {})
    ops = [node.op_type for node in onnx.load(tmp_path / "settled.onnx").graph.node]
    assert "Transpose" not in ops
    assert not read(tmp_path / "settled.onnx").notes
    expected = run(path, IDS_SEEN)[0]
    np.testing.assert_allclose(run(tmp_path / "settled.onnx", IDS_SEEN)[0], expected, rtol=1e-5)
