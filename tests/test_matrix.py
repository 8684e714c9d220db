"""A tied language model in every format that holds a model, converted into every other.

Each cell is judged here, by the framework that reads the output: it gives what the source gives,
also for sizes that nobody showed the exporter, and holds the matrix once.
"""

import importlib.util
import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
import torch
from onnx import numpy_helper
from safetensors import safe_open

from tiesurgeon import operations
from tiesurgeon.errors import UnsupportedFormat

V, H = 11, 3  # vocabulary, width: no other weight has 33 numbers
SIZE = V * H
OUTPUTS = {
    "h5": "out.h5",
    "keras": "out.keras",
    "savedmodel": "out",
    "onnx": "out.onnx",
    "torch": "out",
    "pt2": "out.pt2",
}
KERAS = ("lm.h5", "lm.keras", "saved")
PYTORCH = ("lm.pt2", "lm.pt")
ONTO_KERAS = ("h5", "keras", "savedmodel", "torch")
BATCHES = [
    np.random.default_rng(n).integers(0, V, shape) for n, shape in enumerate([(2, 7), (5, 3)])
]

MODULE = """
from torch import nn

class Lm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(11, 3), nn.LSTM(3, 3, batch_first=True)
        self.out = nn.Linear(3, 11)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return self.out(self.rnn(self.embed(tokens))[0])
"""


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model as each of the sources."""
    folder = tmp_path_factory.mktemp("sources")
    _keras_sources(folder)
    _pytorch_sources(folder)
    return folder


def _keras_sources(folder: Path) -> None:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embed = keras.layers.Embedding(V, H, name="embed")
    x = keras.layers.LSTM(H, return_sequences=True, name="rnn")(embed(tokens))
    model = keras.Model(tokens, keras.layers.Dense(V, name="out")(x))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    model.get_layer("out").kernel.assign(embed.embeddings.numpy().T)
    model.save(folder / "untied.keras")
    for name in ("lm.h5", "lm.keras"):
        operations.tie(
            folder / "untied.keras", [("embed", "out")], output=folder / name, proof="static"
        )
    operations.convert(folder / "lm.keras", "savedmodel", output=folder / "saved", proof="static")


def _pytorch_sources(folder: Path) -> None:
    (folder / "lm_class.py").write_text(MODULE, encoding="utf-8")
    module = _imported(folder / "lm_class.py").Lm().eval()
    torch.save(module, folder / "lm.pt")
    operations.convert(
        folder / "lm.pt", "pt2", output=folder / "lm.pt2", proof="static", trust_code=True
    )


def _imported(file: Path) -> Any:
    """A Python file as a module of that name, which a pickle can name."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- what gives which outputs -------------------------------------------------------------------


def _run_keras(path: Path, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(keras.models.load_model(path, compile=False)(tokens.astype("int32")))


def _run_savedmodel(path: Path, tokens: np.ndarray) -> np.ndarray:
    signature = tf.saved_model.load(path).signatures["serving_default"]
    [output] = signature(tokens=tf.constant(tokens, tf.int32)).values()
    return np.asarray(output)


def _run_onnx(path: Path, tokens: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    dtype = "int64" if given.type == "tensor(int64)" else "int32"
    return session.run(None, {given.name: tokens.astype(dtype)})[0]


def _run_torch(module: Any, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(tokens)).numpy()


RUN: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {
    "h5": _run_keras,
    "keras": _run_keras,
    "savedmodel": _run_savedmodel,
    "onnx": _run_onnx,
    "torch": lambda path, ids: _run_torch(_imported(path / "model.py").load(), ids),
    "pt2": lambda path, ids: _run_torch(torch.export.load(path).module(), ids),
}


# --- how often each holds the matrix ------------------------------------------------------------


def _in_h5(path: Path) -> list[int]:
    sizes: list[int] = []
    with h5py.File(path) as file:
        root = file.get("model_weights", file)
        root.visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
    return sizes


def _in_keras(path: Path, folder: Path) -> list[int]:
    with zipfile.ZipFile(path) as file:
        return _in_h5(Path(file.extract("model.weights.h5", folder)))


def _in_onnx(path: Path) -> list[int]:
    graph = onnx.load(path).graph
    constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    return [numpy_helper.to_array(tensor).size for tensor in (*graph.initializer, *constants)]


def _in_torch(path: Path) -> list[int]:
    with safe_open(path / "model.safetensors", framework="numpy") as file:
        return [file.get_tensor(name).size for name in file.keys()]  # noqa: SIM118, no dict


def _in_pt2(path: Path) -> list[int]:
    with zipfile.ZipFile(path) as file:
        return [
            info.file_size // 4
            for info in file.infolist()
            if re.search(r"/data/weights/weight_\d+$", info.filename)
        ]


COUNT: dict[str, Callable[[Path, Path], list[int]]] = {
    "h5": lambda path, _: _in_h5(path),
    "keras": _in_keras,
    "savedmodel": lambda path, _: [
        int(np.prod(shape))
        for _, shape in tf.train.list_variables(str(path / "variables" / "variables"))
    ],
    "onnx": lambda path, _: _in_onnx(path),
    "torch": lambda path, _: _in_torch(path),
    "pt2": lambda path, _: _in_pt2(path),
}


def _parameters(to: str, path: Path) -> list[int] | None:
    """Sizes of what the framework would train, once it has opened the file."""
    if to in ("h5", "keras"):
        found = keras.models.load_model(path, compile=False).trainable_variables
        return [int(np.prod(variable.shape)) for variable in found]
    if to == "savedmodel":
        found = tf.saved_model.load(path).trainable_variables
        return [int(np.prod(variable.shape)) for variable in found]
    if to == "torch":
        return [one.numel() for one in _imported(path / "model.py").load().parameters()]
    if to == "pt2":
        return [one.numel() for one in torch.export.load(path).module().parameters()]
    return None  # nothing of ONNX is trained


# --- the matrix -----------------------------------------------------------------------------------


def _expected(source: str, sources: Path, tokens: np.ndarray) -> np.ndarray:
    if source in KERAS:
        return _run_keras(sources / "lm.keras", tokens)
    return _run_torch(
        _imported(sources / "lm_class.py") and torch.load(sources / "lm.pt", weights_only=False),
        tokens,
    )


CELLS = [(source, to) for source in (*KERAS, *PYTORCH) for to in OUTPUTS]
REFUSED = [(source, to) for source in PYTORCH for to in ONTO_KERAS] + [("lm.pt2", "pt2")]


@pytest.mark.parametrize(("source", "to"), [cell for cell in CELLS if cell not in REFUSED])
def test_each_cell_computes_the_same_with_one_matrix(
    sources: Path, tmp_path: Path, source: str, to: str
) -> None:
    output = tmp_path / OUTPUTS[to]
    outcome = operations.convert(
        sources / source, to, output=output, proof="static", trust_code=source == "lm.pt"
    )
    assert outcome.proof.reread
    assert len(outcome.ties) == 1
    for tokens in BATCHES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_allclose(
                RUN[to](output, tokens), _expected(source, sources, tokens), rtol=0, atol=1e-5
            )
    assert COUNT[to](output, tmp_path).count(SIZE) == 1
    trained = _parameters(to, output)
    assert trained is None or trained.count(SIZE) == 1


@pytest.mark.parametrize(("source", "to"), REFUSED)
def test_what_cannot_be_converted_is_refused(
    sources: Path, tmp_path: Path, source: str, to: str
) -> None:
    with pytest.raises(UnsupportedFormat, match=r"can be converted to|already"):
        operations.convert(sources / source, to, output=tmp_path / OUTPUTS[to], trust_code=True)
    assert list(tmp_path.iterdir()) == []
