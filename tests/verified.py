"""One small language model, an embedding and an output layer, in every format that runs."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

V, H = 11, 3  # vocabulary, width
TABLE, HEAD = (np.random.default_rng(n).standard_normal((V, H)).astype("f4") for n in (0, 1))
BIAS = np.random.default_rng(2).standard_normal(V).astype("f4")

MODEL_PY = """
from pathlib import Path
from safetensors.torch import load_model
from torch import nn

Path(__file__).with_name("it_ran").touch()

class Lm(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(11, 3), nn.Linear(3, 11)

    def forward(self, tokens):
        return self.head(self.emb(tokens))

def load():
    model = Lm()
    load_model(model, Path(__file__).with_name("model.safetensors"))
    return model.eval()
"""


def module(bias: np.ndarray = BIAS) -> Any:
    """In PyTorch, without a class of its own."""
    model = nn.Sequential(nn.Embedding(V, H), nn.Linear(H, V)).eval()
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), (TABLE, HEAD, bias), strict=True):
            parameter.copy_(torch.from_numpy(array))
    return model


def functional(bias: np.ndarray = BIAS, dtype: str = "int32") -> Any:
    """In Keras."""
    tokens = keras.Input((None,), dtype=dtype, name="tokens")
    embedded = keras.layers.Embedding(V, H, name="emb")(tokens)
    model = keras.Model(tokens, keras.layers.Dense(V, name="head")(embedded))
    model.set_weights([TABLE, HEAD.T, bias])
    return model


def onnx_model(bias: np.ndarray = BIAS, *, ids: str = "ids") -> onnx.ModelProto:
    """In ONNX."""
    tensors = {"table": TABLE, "head": np.ascontiguousarray(HEAD.T), "bias": bias}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", ids], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "head"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ],
        "lm",
        [helper.make_tensor_value_info(ids, TensorProto.INT64, ["batch", "time"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", V])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _export(path: Path, *, is_dynamic: bool) -> None:
    dims = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},) if is_dynamic else None
    example = (torch.zeros(3, 5, dtype=torch.long),)
    torch.export.save(torch.export.export(module(), example, dynamic_shapes=dims), path)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "model.py").write_text(MODEL_PY, encoding="utf-8")
    tensors = {"emb.weight": TABLE, "head.weight": HEAD, "head.bias": BIAS}
    from safetensors.numpy import save_file

    save_file(tensors, path / "model.safetensors")


def _silently(write: Callable[[Any], Any]) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            write(path)

    return written


MODELS: dict[str, Callable[[Path], Any]] = {
    "lm.keras": lambda path: functional().save(path),
    "lm.h5": _silently(lambda path: functional().save(path)),
    "saved": _silently(lambda path: functional().export(path, verbose=False)),
    "lm.pt": lambda path: torch.save(module(), path),
    "script.pt": _silently(lambda path: torch.jit.script(module()).save(path)),
    "any_size.pt2": lambda path: _export(path, is_dynamic=True),
    "one_size.pt2": lambda path: _export(path, is_dynamic=False),
    "folder": _folder,
    "lm.onnx": lambda path: onnx.save(onnx_model(), path),
}
