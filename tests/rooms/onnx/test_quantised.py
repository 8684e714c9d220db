"""Quantised matrices: seen as floats, compared as floats, tied only where the integers allow it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.rooms.onnx.models import (
    FLOAT,
    IDS,
    IDS_SEEN,
    LOGITS,
    H,
    Tensors,
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
from tiesurgeon.errors import TieRefused
from tiesurgeon.find import candidates
from tiesurgeon.graph import View
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage
from tiesurgeon.rooms.onnx.read import read

INT8 = TensorProto.INT8


def in_int8(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.float32(np.abs(array).max() / 127)
    return np.round(array / scale).astype(np.int8), np.array(scale)


def dequantised(*, same: bool = True, opset: int = 17) -> onnx.ModelProto:
    """DequantizeLinear before the Gather and before the MatMul, as QDQ models have it."""
    table, scale = in_int8(numbers(V, H))
    other, other_scale = in_int8(numbers(V, H) if same else numbers(V, H, seed=1))
    tensors: Tensors = {
        "E_q": table,
        "W_q": np.ascontiguousarray(other.T),
        "E_scale": scale,
        "W_scale": other_scale,
        "bias": numbers(V, seed=2),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["E_q", "E_scale"], ["E"]),
        helper.make_node("DequantizeLinear", ["W_q", "W_scale"], ["W"]),
        helper.make_node("Gather", ["E", "ids"], ["x"], name="look"),
        helper.make_node("MatMul", ["x", "W"], ["product"], name="head"),
        helper.make_node("Add", ["product", "bias"], ["logits"], name="add"),
    ]
    return model(nodes, [IDS], [LOGITS], tensors, opset=opset)


def view_of(path: Path, layer: str, role: str) -> View:
    view = read(path).graph.layer(layer).view(role)
    assert view is not None
    return view


def test_the_floats_are_those_of_onnx(tmp_path: Path) -> None:
    path = save(dequantised(), tmp_path / "m.onnx")
    view = view_of(path, "look", "data")
    q, scale = in_int8(numbers(V, H))
    np.testing.assert_array_equal(view.load(), q.astype(np.float32) * scale)
    storage = view.variable.storage
    assert isinstance(storage, QuantisedStorage)
    assert (storage.nbytes, storage.dtype.name) == (V * H, "float32")
    [note] = read(path).notes
    assert "look/data is int8, scale " in note


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("zero", [True, False])
def test_scales_along_an_axis_are_spread_along_it(tmp_path: Path, axis: int, zero: bool) -> None:
    size = (V, H)[axis]
    q = np.arange(V * H, dtype=np.uint8).reshape(V, H)
    tensors: Tensors = {"q": q, "s": np.abs(numbers(size)) + 1}
    if zero:
        tensors = {**tensors, "z": np.arange(size, dtype=np.uint8)}
    names = ["q", "s", "z"] if zero else ["q", "s"]
    nodes = [
        helper.make_node("DequantizeLinear", names, ["E"], axis=axis),
        helper.make_node("Gather", ["E", "ids"], ["y"], name="look"),
    ]
    end = value("y", FLOAT, "batch", "time", H)
    path = save(model(nodes, [IDS], [end], tensors), tmp_path / "m.onnx")
    rows = np.arange(V)[None]
    np.testing.assert_array_equal(view_of(path, "look", "data").load(), run(path, rows)[0][0])


def quantised_by_onnxruntime(folder: Path, *, tied_values: bool = True) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = save(language_model(tied_values=tied_values), folder / "plain.onnx")
    path = folder / "m.onnx"
    quantize_dynamic(plain, path, weight_type=QuantType.QInt8)
    return path


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantisation_is_seen_through(tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(tmp_path)
    found = read(path)
    [best] = [c for c in candidates(found.graph) if c.role == "embedding-output"]
    assert best.match == "close"
    assert best.relative_difference is not None
    assert 0 <= best.relative_difference < 0.02
    plain = numbers(V, H)
    for name, layer in found.graph.by_name.items():
        for view in layer.views:
            if isinstance(view.variable.storage, QuantisedStorage):
                seen = view.load() if view.shape == (V, H) else view.load().T
                assert np.abs(seen - plain).max() < 0.05, name


@pytest.mark.filterwarnings("ignore")
def test_what_dynamic_quantisation_made_is_not_tied(tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(tmp_path)
    [best] = [c for c in candidates(read(path).graph) if c.role == "embedding-output"]
    with pytest.raises(TieRefused, match="before it is quantised"):
        operations.tie(path, [(best.source, best.target)], method="mean", proof="static")


def test_the_same_integers_with_the_same_scale_become_one(tmp_path: Path) -> None:
    path = save(dequantised(), tmp_path / "m.onnx")
    [best] = candidates(read(path).graph)
    assert (best.match, best.saves_bytes) == ("equal", V * H)
    outcome = operations.tie(path, [(best.source, best.target)])
    assert outcome.output is not None
    found = initializers(outcome.output)
    assert "E_q" in found
    assert "W_q" not in found
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-5
    np.testing.assert_allclose(
        run(outcome.output, IDS_SEEN)[0], run(path, IDS_SEEN)[0], rtol=1e-5, atol=1e-6
    )


def test_scales_by_row_follow_the_transpose(tmp_path: Path) -> None:
    made = dequantised()
    scales = np.abs(numbers(V, seed=4)) + 1
    for tensor in made.graph.initializer:
        if tensor.name in ("E_scale", "W_scale"):
            tensor.CopyFrom(numpy_helper.from_array(scales, tensor.name))
    made.graph.node[0].attribute.append(helper.make_attribute("axis", 0))
    made.graph.node[1].attribute.append(helper.make_attribute("axis", 1))
    path = save(made, tmp_path / "m.onnx")
    outcome = operations.tie(path, [("look", "head")])
    assert outcome.output is not None
    assert "W_q" not in initializers(outcome.output)
    table = view_of(path, "look", "data").load()
    expected = table[IDS_SEEN] @ table.T + numbers(V, seed=2)
    np.testing.assert_allclose(run(outcome.output, IDS_SEEN)[0], expected, rtol=1e-5)


def test_other_zero_points_are_refused(tmp_path: Path) -> None:
    made = dequantised()
    zero = numpy_helper.from_array(np.array(3, np.int8), "zero")
    made.graph.initializer.append(zero)
    made.graph.node[1].input.append("zero")
    path = save(made, tmp_path / "m.onnx")
    with pytest.raises(TieRefused, match="other scales or zero points"):
        operations.tie(path, [("look", "head")], method="mean", proof="static")


@pytest.mark.parametrize("method", [None, "mean", "keep-source"])
def test_other_integers_are_refused_whatever_the_method(tmp_path: Path, method: str | None) -> None:
    path = save(dequantised(same=False), tmp_path / "m.onnx")
    with pytest.raises(TieRefused):
        operations.tie(path, [("look", "head")], method=method, proof="static")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero", [True, False])
def test_matmulnbits_is_unpacked_as_onnxruntime_does(tmp_path: Path, bits: int, zero: bool) -> None:
    rows, width, block = 5, 48, 16
    blocks = width // block
    rng = np.random.default_rng(0)
    tensors: Tensors = {
        "B": rng.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8),
        "s": np.abs(numbers(rows * blocks)) + 0.5,
    }
    names = ["x", "B", "s"]
    if zero:
        size = rows * -(-blocks * bits // 8)
        tensors = {**tensors, "z": rng.integers(0, 256, size).astype(np.uint8)}
        names.append("z")
    node = helper.make_node(
        "MatMulNBits",
        names,
        ["y"],
        name="head",
        domain="com.microsoft",
        K=width,
        N=rows,
        bits=bits,
        block_size=block,
    )
    ends = [value("x", FLOAT, "n", width)], [value("y", FLOAT, "n", rows)]
    opsets = [helper.make_opsetid("com.microsoft", 1)]
    path = save(model([node], *ends, tensors, opsets=opsets), tmp_path / "m.onnx")
    expected = run(path, np.eye(width, dtype=np.float32))[0].T
    np.testing.assert_allclose(view_of(path, "head", "B").load(), expected, rtol=1e-4, atol=1e-4)


def test_a_table_in_blocks_is_unpacked_as_onnxruntime_does(tmp_path: Path) -> None:
    width, block = 32, 16
    rng = np.random.default_rng(0)
    tensors: Tensors = {
        "E": rng.integers(0, 256, (V, width // 2)).astype(np.uint8),
        "s": np.abs(numbers(V, width // block)) + 0.5,
    }
    node = helper.make_node(
        "GatherBlockQuantized",
        ["E", "ids", "s"],
        ["y"],
        name="look",
        domain="com.microsoft",
        block_size=block,
        bits=4,
        gather_axis=0,
        quantize_axis=1,
    )
    end = value("y", FLOAT, "batch", "time", width)
    opsets = [helper.make_opsetid("com.microsoft", 1)]
    path = save(model([node], [IDS], [end], tensors, opsets=opsets), tmp_path / "m.onnx")
    expected = run(path, np.arange(V)[None])[0][0]
    np.testing.assert_allclose(view_of(path, "look", "data").load(), expected, rtol=1e-6)


def test_a_recurrent_layer_shows_both_its_matrices(tmp_path: Path) -> None:
    q = {"W_q": np.ones((1, H, 8), np.int8), "R_q": np.ones((1, 2, 8), np.int8)}
    scales = {name: np.full(1, 0.5, np.float32) for name in ("W_s", "R_s")}
    zeros = {name: np.zeros(1, np.int8) for name in ("W_z", "R_z")}
    inputs = ["x", "W_q", "R_q", "", "", "", "", "", "W_s", "W_z", "R_s", "R_z"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, ["y"], name="lstm", domain="com.microsoft", hidden_size=2
    )
    ends = [value("x", FLOAT, 5, 1, H)], [value("y", FLOAT, 5, 1, 1, 2)]
    opsets = [helper.make_opsetid("com.microsoft", 1)]
    made = model([node], *ends, {**q, **scales, **zeros}, opsets=opsets)
    path = save(made, tmp_path / "m.onnx")
    for role in ("W", "R"):
        assert (view_of(path, "lstm", role).load() == 0.5).all()
