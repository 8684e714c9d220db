"""Weights of Keras 1 and of cuDNN's layers, against the conversion that Keras 2 itself makes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.rooms.keras.stock import difference, literally, loaded, rewritten
from tiesurgeon.graph import Graph
from tiesurgeon.rooms.keras.read import read_literally

old = pytest.importorskip("tf_keras")
from tf_keras.src.saving.legacy.hdf5_format import (  # noqa: E402
    preprocess_weights_for_loading,
)

O = old.layers  # noqa: E741
pytestmark = pytest.mark.filterwarnings("ignore")
Arrays = list[np.ndarray]


def numbers(*shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def written(
    path: Path, config: Any, lists: dict[str, Arrays], version: str | None = None, **attrs: str
) -> Path:
    """An .h5 file of the old kind: one list of weights for each layer."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        if version is not None:
            file.attrs["keras_version"] = version
        group = file.create_group("model_weights")
        group.attrs.update(attrs)
        group.attrs["layer_names"] = [name.encode() for name in lists]
        for name, arrays in lists.items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [f"{name}_{i}".encode() for i in range(len(arrays))]
            for i, array in enumerate(arrays):
                layer[f"{name}_{i}"] = array
    return path


def sequential(*layers: Any) -> Any:
    """A Sequential's config as Keras 1 wrote it."""
    return {"class_name": "Sequential", "config": [dict(layer) for layer in layers]}


def entry(class_name: str, name: str, **config: Any) -> Any:
    return {"class_name": class_name, "config": {"name": name, "trainable": True, **config}}


def views(graph: Graph, name: str) -> Arrays:
    return [np.asarray(view.load()) for view in graph.layer(name).views]


def as_keras2(layer: Any, shape: tuple[int | None, ...], arrays: Arrays) -> Arrays:
    """What Keras 2 makes of arrays of Keras 1."""
    layer.build(shape)
    converted = preprocess_weights_for_loading(layer, list(arrays), "1")
    return [np.asarray(array) for array in converted]


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


RECURRENT = {"inner_activation": "hard_sigmoid", "init": "glorot_uniform"}


def per_gate(gates: int, width: int, units: int) -> Arrays:
    return numbers(*([(width, units), (units, units), (units,)] * gates))


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("SimpleRNN", 1)])
def test_gates_of_keras_1_are_joined(op: str, gates: int, tmp_path: Path) -> None:
    arrays = per_gate(gates, 3, 5)
    words = RECURRENT if gates > 1 else {"init": "glorot_uniform"}
    config = entry(op, "rnn", output_dim=5, batch_input_shape=[None, 7, 3], **words)
    path = written(tmp_path / "model.h5", sequential(config), {"rnn": arrays})
    options = {"reset_after": False} if op == "GRU" else {}
    layer = getattr(O, op)(5, **options)
    found = read_literally(path)
    assert_equal(views(found.graph, "rnn"), as_keras2(layer, (None, 7, 3), arrays))
    assert found.writer == "keras 1"
    loaded(rewritten(found, tmp_path / "out.keras"))


def test_joined_gates_of_keras_1_stay(tmp_path: Path) -> None:
    """consume_less="gpu" kept one matrix."""
    arrays = numbers((3, 20), (5, 20), (20,))
    config = entry("LSTM", "rnn", output_dim=5, batch_input_shape=[None, 7, 3], **RECURRENT)
    path = written(tmp_path / "model.h5", sequential(config), {"rnn": arrays})
    assert_equal(views(literally(path), "rnn"), arrays)


def test_gates_in_wrappers_and_nested_models_are_joined(tmp_path: Path) -> None:
    forward = per_gate(3, 3, 5)
    backward = [array + 1 for array in forward]
    inner = entry("GRU", "gru", output_dim=5, **RECURRENT)
    both = entry("Bidirectional", "both", layer=inner, merge_mode="concat")
    both["config"]["batch_input_shape"] = [None, 7, 3]
    norm, lstm = numbers((10,), (10,), (10,), (10,)), per_gate(4, 10, 2)
    nested = {
        "class_name": "Sequential",
        "config": [
            entry("BatchNormalization", "norm", mode=0, axis=-1, batch_input_shape=[None, 10]),
            entry("RepeatVector", "repeat", n=3),
            entry("LSTM", "lstm", output_dim=2, **RECURRENT),
        ],
        "name": "core",
    }
    lists = {"both": forward + backward, "core": norm[:2] + lstm + norm[2:]}
    config = {"class_name": "Sequential", "config": [both, nested]}
    graph = literally(written(tmp_path / "model.h5", config, lists))
    layer = O.GRU(5, reset_after=False)
    sides = graph.layer("both").inner
    for side, arrays in zip(sides, (forward, backward), strict=True):
        found = [np.asarray(view.load()) for view in side.views]
        assert_equal(found, as_keras2(layer, (None, 7, 3), arrays))
    core = next(layer.body for layer in graph.layers if layer.body is not None)
    assert_equal(views(core, "norm"), norm)
    assert_equal(views(core, "lstm"), as_keras2(O.LSTM(2), (None, 3, 10), lstm))


CONVOLUTIONS: dict[str, tuple[Any, Callable[[], Any], tuple[int, ...], tuple[int, ...]]] = {
    "1D": (
        entry("Convolution1D", "c", nb_filter=5, filter_length=2, border_mode="valid"),
        lambda: O.Conv1D(5, 2),
        (7, 3),
        (2, 1, 3, 5),
    ),
    "1D before 1.2": (
        entry("Convolution1D", "c", nb_filter=5, filter_length=2, border_mode="valid"),
        lambda: O.Conv1D(5, 2),
        (7, 3),
        (5, 3, 2, 1),
    ),
    "2D": (
        entry("Convolution2D", "c", nb_filter=5, nb_row=2, nb_col=3, dim_ordering="tf"),
        lambda: O.Conv2D(5, (2, 3)),
        (7, 7, 3),
        (2, 3, 3, 5),
    ),
    "2D channels first": (
        entry("Convolution2D", "c", nb_filter=5, nb_row=2, nb_col=3, dim_ordering="th"),
        lambda: O.Conv2D(5, (2, 3), data_format="channels_first"),
        (3, 7, 7),
        (5, 3, 2, 3),
    ),
    "3D channels first": (
        entry(
            "Convolution3D",
            "c",
            nb_filter=5,
            kernel_dim1=2,
            kernel_dim2=3,
            kernel_dim3=1,
            dim_ordering="th",
        ),
        lambda: O.Conv3D(5, (2, 3, 1), data_format="channels_first"),
        (3, 7, 7, 7),
        (5, 3, 2, 3, 1),
    ),
    "transposed": (
        entry("Deconvolution2D", "c", nb_filter=5, nb_row=2, nb_col=3, dim_ordering="tf"),
        lambda: O.Conv2DTranspose(5, (2, 3)),
        (7, 7, 3),
        (2, 3, 3, 5),
    ),
    "transposed channels first": (
        entry("Deconvolution2D", "c", nb_filter=5, nb_row=2, nb_col=3, dim_ordering="th"),
        lambda: O.Conv2DTranspose(5, (2, 3), data_format="channels_first"),
        (3, 7, 7),
        (5, 3, 2, 3),
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_kernels_of_keras_1_are_turned(name: str, tmp_path: Path) -> None:
    config, make, shape, kernel = CONVOLUTIONS[name]
    config = {**config, "config": {**config["config"], "batch_input_shape": [None, *shape]}}
    arrays = numbers(kernel, (5,))
    path = written(tmp_path / "model.h5", sequential(config), {"c": arrays})
    assert_equal(views(literally(path), "c"), as_keras2(make(), (None, *shape), arrays))


def test_kernels_of_theano_are_flipped(tmp_path: Path) -> None:
    config = entry("Conv2D", "c", filters=5, kernel_size=[2, 3], batch_input_shape=[None, 7, 7, 3])
    arrays = numbers((2, 3, 3, 5), (5,))
    model = {"class_name": "Sequential", "config": [config]}
    path = written(tmp_path / "m.h5", model, {"c": arrays}, "2.0.8", backend="theano")
    found = read_literally(path)
    kernel, bias = views(found.graph, "c")
    np.testing.assert_array_equal(kernel, arrays[0][::-1, ::-1])
    np.testing.assert_array_equal(bias, arrays[1])


def cudnn_config(op: str, name: str) -> Any:
    config = {"units": 5, "return_sequences": True, "batch_input_shape": [None, 7, 3]}
    return entry(op, name, **config)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_cudnn_weights_become_plain_ones(
    op: str, gates: int, wrapped: bool, tmp_path: Path
) -> None:
    shapes = [(3, 5 * gates), (5, 5 * gates), (2 * 5 * gates,)]
    one, two = numbers(*shapes), [array + 1 for array in numbers(*shapes)]
    config = cudnn_config(f"CuDNN{op}", "rnn")
    if wrapped:
        config = entry("Bidirectional", "both", layer=config, batch_input_shape=[None, 7, 3])
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": [config]}}
    lists = {"both": one + two} if wrapped else {"rnn": one}
    found = read_literally(written(tmp_path / "model.h5", model, lists, "2.2.4"))
    plain = old.Sequential(
        [
            old.Input((7, 3)),
            O.Bidirectional(getattr(O, op)(5, return_sequences=True))
            if wrapped
            else getattr(O, op)(5, return_sequences=True),
        ]
    )
    layer = plain.layers[0]
    layer.set_weights(preprocess_weights_for_loading(layer, one + two if wrapped else one, "2.2.4"))
    x = np.random.default_rng(1).standard_normal((2, 7, 3)).astype("float32")
    again = loaded(rewritten(found, tmp_path / "out.keras"))
    assert difference([np.asarray(again(x))], [plain(x).numpy()]) < 1e-6
