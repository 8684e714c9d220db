"""What is read from an ONNX file: nodes as layers, initializers as variables, all that nests."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.rooms.onnx.models import (
    FLOAT,
    IDS,
    INT64,
    LOGITS,
    H,
    V,
    language_model,
    model,
    numbers,
    save,
    value,
)
from tiesurgeon.find import candidates, ties
from tiesurgeon.graph import Value
from tiesurgeon.names import resolve
from tiesurgeon.rooms.onnx.read import read


def test_nodes_are_layers_and_initializers_are_their_variables(tmp_path: Path) -> None:
    graph = read(save(language_model(), tmp_path / "m.onnx")).graph

    found = {name: (layer.op, [view.role for view in layer.views]) for name, layer in graph.walk()}
    assert found == {
        "ids": ("InputLayer", []),
        "/embed/Gather": ("Gather", ["data"]),
        "/Tanh": ("Tanh", []),
        "/head/MatMul": ("MatMul", ["B"]),
        "/head/Add": ("Add", ["B"]),
    }
    assert [call.inputs for call in graph.calls_of("/head/MatMul")] == [(Value("/Tanh"),)]
    assert graph.outputs == (Value("/head/Add"),)


def test_a_node_without_a_name_is_called_by_what_it_makes(tmp_path: Path) -> None:
    made = language_model()
    for node in made.graph.node:
        node.name = ""
    graph = read(save(made, tmp_path / "m.onnx")).graph
    assert [layer.name for layer in graph.layers] == [
        "ids",
        "embedded",
        "hidden",
        "product",
        "logits",
    ]


@pytest.mark.parametrize("name", ["/embed/Gather", "Gather", "embed.weight", "/embed/Gather/data"])
def test_a_weight_goes_by_its_node_and_by_its_own_name(tmp_path: Path, name: str) -> None:
    graph = read(save(language_model(), tmp_path / "m.onnx")).graph
    assert resolve(graph, name).variable == "/embed/Gather/data"


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("rows", [V, 997])  # small ones stand in the protobuf, large ones do not
def test_numbers_are_those_of_the_file(tmp_path: Path, rows: int, outside: bool) -> None:
    table = numbers(rows, H)
    made = model(
        [helper.make_node("Gather", ["E", "ids"], ["y"])],
        [value("ids", INT64, "n")],
        [value("y", FLOAT, "n", H)],
        {"E": table},
    )
    graph = read(save(made, tmp_path / "m.onnx", outside=outside)).graph
    [variable] = graph.variables()
    np.testing.assert_array_equal(variable.storage.load(), table)


def test_large_numbers_stay_in_the_file(tmp_path: Path) -> None:
    made = language_model()
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(numbers(997, H), "embed.weight"))
    made.graph.initializer[0].data_location = TensorProto.DEFAULT  # onnx.load leaves it said
    document = read(save(made, tmp_path / "m.onnx")).document
    assert document.model.ByteSize() < 1024
    view = document.graph.layer("/embed/Gather").view("data")
    assert view is not None
    assert isinstance(view.load().base, np.memmap)


def test_numbers_that_are_packed_floats_are_read(tmp_path: Path) -> None:
    made = language_model()
    table = numbers(997, H)
    tensor = helper.make_tensor("embed.weight", FLOAT, table.shape, table.ravel(), raw=False)
    assert not tensor.HasField("raw_data")
    made.graph.initializer[0].CopyFrom(tensor)
    graph = read(save(made, tmp_path / "m.onnx")).graph
    view = graph.layer("/embed/Gather").view("data")
    assert view is not None
    np.testing.assert_array_equal(view.load(), table)


@pytest.mark.parametrize(
    "kind",
    ["FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT4", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"],
)
@pytest.mark.parametrize("raw", [True, False])
def test_every_dtype_is_read_as_onnx_reads_it(tmp_path: Path, kind: str, raw: bool) -> None:
    number = getattr(TensorProto, kind)
    array = np.arange(V * H).reshape(V, H) % 7
    tensor = helper.make_tensor("E", number, array.shape, array.ravel().astype("f4"))
    if raw:
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "E")
    made = model(
        [helper.make_node("Gather", ["E", "ids"], ["y"])],
        [value("ids", INT64, "n")],
        [value("y", number, "n", H)],
        {},
        opset=23,
        ir=11,
    )
    made.graph.initializer.append(tensor)
    [variable] = read(save(made, tmp_path / "m.onnx")).graph.variables()
    expected = numpy_helper.to_array(tensor)
    np.testing.assert_array_equal(
        variable.storage.load().astype("f8"), np.asarray(expected).astype("f8")
    )
    assert variable.storage.load().astype("f8").max() == 6


def test_constants_and_transposes_are_seen_through(tmp_path: Path) -> None:
    table = numbers(V, H)
    nodes = [
        helper.make_node("Constant", [], ["E"], value=numpy_helper.from_array(table)),
        helper.make_node("Identity", ["E"], ["F"]),
        helper.make_node("Transpose", ["F"], ["T"], perm=[1, 0]),
        helper.make_node("Gather", ["F", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "T"], ["logits"], name="project"),
    ]
    graph = read(save(model(nodes, [IDS], [LOGITS], {}), tmp_path / "m.onnx")).graph
    [tie] = ties(graph)
    assert (tie.source, tie.target, tie.perm) == ("look/data", "project/B", (1, 0))


def test_axes_and_shapes_are_settings_and_no_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["u"], name="wider"),
        helper.make_node("Squeeze", ["u", "axes"], ["y"], name="back"),
    ]
    made = model(nodes, [value("x", FLOAT, 5)], [value("y", FLOAT, 5)], {"axes": np.array([0])})
    graph = read(save(made, tmp_path / "m.onnx")).graph
    assert graph.layer("wider").config == {"axes": [0]}
    assert not graph.variables()
    assert not ties(graph)


def test_an_if_shows_both_branches_and_what_they_capture(tmp_path: Path) -> None:
    def branch(matrix: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", matrix], ["z"], name="product")
        own = [numpy_helper.from_array(numbers(H, V, seed=3), "own")]
        return helper.make_graph([node], matrix, [], [value("z", FLOAT, "n", V)], own)

    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node(
            "If", ["c"], ["y"], name="choice", then_branch=branch("W"), else_branch=branch("own")
        ),
    ]
    made = model(
        nodes,
        [value("ids", INT64, "n"), value("c", TensorProto.BOOL)],
        [value("y", FLOAT, "n", V)],
        {"E": numbers(V, H), "W": np.ascontiguousarray(numbers(V, H).T)},
    )
    graph = read(save(made, tmp_path / "m.onnx")).graph
    paths = [path for path, _ in graph.walk()]
    assert "choice/then_branch/product" in paths
    assert "choice/else_branch/product" in paths
    [best] = [c for c in candidates(graph) if c.match == "equal"]
    assert resolve(graph, best.target).variable == "choice/then_branch/product/B"
    assert best.role == "embedding-output"


def test_a_loop_passes_values_through_its_body(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["again"]),
            helper.make_node("MatMul", ["h", "W"], ["next"], name="step"),
        ],
        "body",
        [value("i", INT64), value("c", TensorProto.BOOL), value("h", FLOAT, "n", H)],
        [value("again", TensorProto.BOOL), value("next", FLOAT, "n", H)],
    )
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("Loop", ["times", "", "x"], ["h_last"], name="loop", body=body),
        helper.make_node("MatMul", ["h_last", "D"], ["y"], name="head"),
    ]
    tensors = {
        "E": numbers(V, H),
        "W": numbers(H, H, seed=1),
        "D": numbers(H, V, seed=2),
        "times": np.array(2),
    }
    made = model(nodes, [value("ids", INT64, "n")], [value("y", FLOAT, "n", V)], tensors)
    graph = read(save(made, tmp_path / "m.onnx")).graph
    assert [(c.source, c.target) for c in candidates(graph)] == [("look", "head")]


def test_functions_are_opened_at_each_call(tmp_path: Path) -> None:
    function = helper.make_function(
        "mine",
        "Linear",
        ["x", "w"],
        ["y"],
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("Linear", ["x", "W"], ["logits"], name="head", domain="mine"),
    ]
    tensors = {"E": numbers(V, H), "W": np.ascontiguousarray(numbers(V, H).T)}
    made = model(
        nodes,
        [IDS],
        [LOGITS],
        tensors,
        functions=[function],
        opsets=[helper.make_opsetid("mine", 1)],
    )
    found = read(save(made, tmp_path / "m.onnx"))
    [best] = candidates(found.graph)
    assert (best.source, best.match) == ("look", "equal")
    assert resolve(found.graph, best.target).variable == "head/product/B"


def test_nodes_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    made = language_model()
    nodes = [type(node).FromString(node.SerializeToString()) for node in made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))
    graph = read(save(made, tmp_path / "m.onnx")).graph
    assert [layer.name for layer in graph.layers][1:] == [
        "/embed/Gather",
        "/Tanh",
        "/head/MatMul",
        "/head/Add",
    ]


def test_a_position_table_is_no_table_of_tokens(tmp_path: Path) -> None:
    """As in g2p-id-py: both tables have the vocabulary's shape."""
    nodes = [
        helper.make_node("Shape", ["ids"], ["length"], start=1),
        helper.make_node("Squeeze", ["length"], ["end"]),
        helper.make_node("Range", ["zero", "end", "one"], ["places"]),
        helper.make_node("Gather", ["P", "places"], ["p"], name="second"),
        helper.make_node("Gather", ["E", "ids"], ["e"], name="first"),
        helper.make_node("Add", ["e", "p"], ["x"]),
        helper.make_node("MatMul", ["x", "W"], ["logits"], name="head"),
    ]
    tensors = {
        "P": numbers(V, H, seed=3),
        "E": numbers(V, H),
        "W": numbers(H, V, seed=4),
        "zero": np.array(0),
        "one": np.array(1),
    }
    graph = read(save(model(nodes, [IDS], [LOGITS], tensors), tmp_path / "m.onnx")).graph
    assert [(c.source, c.target) for c in candidates(graph)] == [("first", "head")]


def test_sparse_initializers_and_unknown_operators_are_named(tmp_path: Path) -> None:
    made = language_model(bias=False)
    made.graph.node[1].op_type, made.graph.node[1].domain = "Odd", "elsewhere"
    made.opset_import.append(helper.make_opsetid("elsewhere", 1))
    values = numpy_helper.from_array(numbers(2), "thin")
    places = numpy_helper.from_array(np.array([1, 4]), "thin_places")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [V]))
    notes = read(save(made, tmp_path / "m.onnx")).notes
    assert any("elsewhere.Odd (1)" in note for note in notes)
    assert any(note.startswith("stored sparse") and "thin" in note for note in notes)


def test_two_initializers_on_the_same_bytes_are_an_alias(tmp_path: Path) -> None:
    path = save(language_model(transposed=False), tmp_path / "m.onnx", outside=True)
    made = onnx.load(path, load_external_data=False)
    one, other = (t for t in made.graph.initializer if t.name in ("embed.weight", "head.weight"))
    del other.external_data[:]
    other.external_data.extend(one.external_data)
    onnx.save_model(made, path)
    [tie] = ties(read(path).graph)
    assert tie.kind == "alias"
