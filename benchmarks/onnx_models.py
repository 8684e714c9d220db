"""A language model in ONNX whose two vocabulary matrices have the size that is asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 512


def write(path: Path, rows: int, *, outside: bool) -> Path:
    """Ids -> Gather(E) -> Tanh -> MatMul(E transposed) + bias; `outside`: data beside the model.

    Numbers are written by blocks, so that any size can be made.
    """
    sizes = {"embed.weight": (rows, WIDTH), "head.weight": (WIDTH, rows), "head.bias": (rows,)}
    nodes = [
        helper.make_node("Gather", ["embed.weight", "ids"], ["embedded"], name="embed"),
        helper.make_node("Tanh", ["embedded"], ["hidden"], name="tanh"),
        helper.make_node("MatMul", ["hidden", "head.weight"], ["product"], name="head"),
        helper.make_node("Add", ["product", "head.bias"], ["logits"], name="add"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "time"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", rows])
    graph = helper.make_graph(nodes, "lm", [ids], [logits])
    table = np.random.default_rng(0).standard_normal((rows, WIDTH), np.float32)
    arrays = {"embed.weight": table, "head.weight": table.T, "head.bias": np.zeros(rows, "f4")}
    offset = 0
    data = path.with_name(f"{path.name}.data")
    with (data if outside else Path(os.devnull)).open("wb") as file:
        for name, dims in sizes.items():
            tensor = graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=dims)
            if not outside:
                tensor.raw_data = arrays[name].tobytes()
                continue
            size = 4 * int(np.prod(dims))
            tensor.data_location = TensorProto.EXTERNAL
            for key, text in (("location", data.name), ("offset", offset), ("length", size)):
                tensor.external_data.add(key=key, value=str(text))
            np.ascontiguousarray(arrays[name]).tofile(file)
            offset += size
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


if __name__ == "__main__":
    onnx.checker.check_model(str(write(Path(sys.argv[1]), int(sys.argv[2]), outside=True)))
