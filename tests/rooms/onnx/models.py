"""Small ONNX models made with onnx itself: an embedding, something, and a projection back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

V, H = 11, 3  # vocabulary, width
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Tensors = Mapping[str, np.ndarray]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    tensors: Tensors,
    *,
    opset: int = 17,
    ir: int = 8,
    **given: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "main",
        list(inputs),
        list(outputs),
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset), *given.pop("opsets", ())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, **given)


def value(name: str, kind: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


IDS = value("ids", INT64, "batch", "time")
LOGITS = value("logits", FLOAT, "batch", "time", V)


def language_model(
    *,
    tied_values: bool = True,
    bias: bool = True,
    transposed: bool = True,
    softmax: bool = False,
    opset: int = 17,
) -> onnx.ModelProto:
    """Ids -> Gather(E) -> Tanh -> MatMul(E.T or W) -> + bias, as an exporter writes a tied model.

    Not `transposed`: the projection is a Gemm with transB over two axes. `softmax`: what comes
    out of the projection is not yet the output.
    """
    table = numbers(V, H)
    head = table if tied_values else numbers(V, H, seed=1)
    tensors = {"embed.weight": table, "head.bias": numbers(V, seed=2)}
    last = "product" if bias else "logits"
    nodes = [
        helper.make_node("Gather", ["embed.weight", "ids"], ["embedded"], name="/embed/Gather"),
        helper.make_node("Tanh", ["embedded"], ["hidden"], name="/Tanh"),
    ]
    inputs, outputs = [IDS], [LOGITS]
    if transposed:
        tensors["onnx::MatMul_9"] = np.ascontiguousarray(head.T)
        nodes.append(
            helper.make_node("MatMul", ["hidden", "onnx::MatMul_9"], [last], name="/head/MatMul")
        )
        if bias:
            add = helper.make_node("Add", ["product", "head.bias"], ["logits"], name="/head/Add")
            nodes.append(add)
    else:
        inputs, outputs = [value("ids", INT64, "batch")], [value("logits", FLOAT, "batch", V)]
        tensors["head.weight"] = head.copy()
        nodes.append(
            helper.make_node(
                "Gemm",
                ["hidden", "head.weight", "head.bias"],
                ["logits"],
                name="/head/Gemm",
                transB=1,
            )
        )
    if not bias:
        del tensors["head.bias"]
    if softmax:
        nodes[-1].output[0] = "before"
        nodes.append(helper.make_node("Softmax", ["before"], ["logits"], name="/Softmax", axis=-1))
    return model(nodes, inputs, outputs, tensors, opset=opset)


def save(made: onnx.ModelProto, path: Path, *, outside: bool = False) -> Path:
    """Saves a model; `outside`: with all tensors in `<name>.data`."""
    if outside:
        convert_model_to_external_data(
            made, location=f"{path.name}.data", size_threshold=0, convert_attribute=False
        )
    onnx.save_model(made, path)
    return path


def run(path: Path | bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime gives."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    given = str(path) if isinstance(path, Path) else path
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def initializers(path: Path) -> dict[str, np.ndarray]:
    made = onnx.load(path)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}


IDS_SEEN = np.array([[1, 2, 10, 0, 4], [3, 3, 9, 7, 8]], np.int64)
