"""What is written reloads in stock Keras as the same model, compiled, without a warning."""

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tests.rooms.keras.models import MODELS, every_second_frozen, ids, vectors
from tests.rooms.keras.stock import (
    assert_same_weights,
    difference,
    loaded,
    randomised,
    rewritten,
    run,
    saved,
)
from tiesurgeon.graph import Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras.config import serialise
from tiesurgeon.rooms.keras.read import read_literally
from tiesurgeon.rooms.keras.write import write_h5, write_keras

L = keras.layers
SUFFIXES = (".keras", ".h5")


def images() -> Any:
    x = keras.Input((9, 9, 3))
    y = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(5, 3, padding="same")(x)))
    y = L.DepthwiseConv2D(3, padding="same")(y)
    y = L.MaxPooling2D()(L.SpatialDropout2D(0.2)(y))
    y = L.Conv2DTranspose(3, 2, strides=2)(L.ZeroPadding2D(1)(y))
    return keras.Model(x, L.Dense(2, activation="softmax")(L.GlobalAveragePooling2D()(y)))


def text() -> Any:
    x = ids()
    y = L.SpatialDropout1D(0.1)(L.Embedding(11, 3, mask_zero=True)(x))
    y = L.Bidirectional(L.GRU(5, return_sequences=True), merge_mode="sum")(y)
    y = L.LayerNormalization()(L.GaussianNoise(0.1)(y))
    return keras.Model(x, L.TimeDistributed(L.Dense(11))(y))


def merges() -> Any:
    one, two = vectors(name="one"), vectors(name="two")
    ends = [layer()([one, two]) for layer in (L.Add, L.Multiply, L.Average, L.Maximum, L.Subtract)]
    ends += [L.Dot(axes=2)([one, two]), L.Concatenate(axis=1)([one, two])]
    return keras.Model([one, two], ends)


def shapes() -> Any:
    x = vectors(6)
    y = L.RepeatVector(5)(L.Reshape((3, 2))(x)[:, 0])
    y = L.Permute((2, 1))(L.Cropping1D(1)(L.UpSampling1D(2)(y)))
    return keras.Model(x, L.Flatten()(L.LeakyReLU(0.1)(L.PReLU()(L.ELU()(y)))))


def siamese_inside() -> Any:
    x = ids("x")
    tower = keras.Model(x, L.LSTM(5)(L.Embedding(11, 3)(x)), name="tower")
    one, two = ids("one"), ids("two")
    gap = keras.ops.abs(tower(one) - tower(two))
    return keras.Model([one, two], L.Dense(1, activation="sigmoid")(gap))


def settings() -> Any:
    x = vectors()
    y = L.Dense(
        7,
        kernel_regularizer=keras.regularizers.L1L2(1e-3, 1e-2),
        kernel_constraint=keras.constraints.MaxNorm(2),
        bias_initializer=keras.initializers.Constant(0.5),
        activity_regularizer="l2",
        activation=keras.activations.gelu,
    )(x)
    return keras.Model(x, L.Softmax(axis=1)(L.UnitNormalization()(y)))


def one_input_unused() -> Any:
    one, two = vectors(name="one"), vectors(name="two")
    return keras.Model([one, two], [L.Dense(2)(one), one])


ALL = {
    **MODELS,
    **{
        build.__name__: build
        for build in (images, text, merges, shapes, siamese_inside, settings, one_input_unused)
    },
}


@pytest.mark.parametrize("name", ALL)
def test_written_models_are_the_same_in_keras(name: str, tmp_path: Path) -> None:
    made = randomised(ALL[name]())
    every_second_frozen(made)
    source = ".h5" if name in ("functional", "text", "nested_twice_deep", "dicts") else ".keras"
    found = read_literally(saved(made, tmp_path / f"model{source}"))
    expected = run(made, found.graph)
    for suffix in SUFFIXES:
        if name == "half_precision" and suffix == ".h5":
            continue  # Keras cannot load bfloat16 from there, whoever wrote it
        again = loaded(rewritten(found, tmp_path / f"out{suffix}"))
        assert_same_weights(again, made)
        assert difference(run(again, found.graph), expected) == 0
        assert [layer.name for layer in again.layers] == [layer.name for layer in made.layers]
        assert again.name == made.name
        assert again.input_shape == made.input_shape
        assert [v.trainable for v in again.weights] == [v.trainable for v in made.weights]
        for structure in ("_inputs_struct", "_outputs_struct"):
            assert form(again, structure) == form(made, structure)


def form(model: Any, structure: str) -> Any:
    """Inputs or outputs as lists and dicts of shapes."""
    found = getattr(model, structure, None)
    if found is None:  # a Sequential
        return None
    return keras.tree.map_structure(lambda tensor: tuple(tensor.shape), found)


def test_what_was_changed_inside_a_wrapper_is_written(tmp_path: Path) -> None:
    given = vectors()
    wrapper = L.Bidirectional(L.GRU(2, name="gru"), name="both")
    made = keras.Model(given, L.Dense(1)(wrapper(given)))
    found = read_literally(saved(made, tmp_path / "model.keras"))
    both = found.graph.layer("both")
    inner = tuple(replace(lay, config={**lay.config, "trainable": False}) for lay in both.inner)
    changed = found.graph.with_layers({"both": replace(both, inner=inner)})
    for suffix in SUFFIXES:
        again = loaded(rewritten(replace(found, graph=changed), tmp_path / f"out{suffix}"))
        assert len(again.trainable_weights) == 2
        assert again.get_layer("both").forward_layer.name == wrapper.forward_layer.name


@pytest.mark.parametrize("frozen", [{"core"}, {"look"}, {"first", "look"}, {"core", "-last"}])
def test_frozen_attention_in_a_nested_model(frozen: set[str], tmp_path: Path) -> None:
    """The order in .h5 must be the one that Keras has after loading."""
    x = vectors()
    y = L.BatchNormalization(name="norm")(L.Dense(3, name="first")(x))
    y = L.MultiHeadAttention(2, 3, name="look")(y, y)
    core = keras.Model(x, L.Dense(3, name="last")(y), name="core")
    outer = vectors()
    made = randomised(keras.Model(outer, core(outer)))
    for name in sorted(frozen, key=lambda name: name.startswith("-")):
        layer = core if name == "core" else core.get_layer(name.lstrip("-"))
        layer.trainable = name.startswith("-")
    found = read_literally(saved(made, tmp_path / "model.keras"))
    for suffix in SUFFIXES:
        assert_same_weights(loaded(rewritten(found, tmp_path / f"out{suffix}")), made)


def test_what_was_written_reads_as_it_was(tmp_path: Path) -> None:
    for name, build in ALL.items():
        first = read_literally(saved(randomised(build()), tmp_path / "model.keras"))
        again = read_literally(rewritten(first, tmp_path / "out.keras"))
        assert serialise(again.graph) == serialise(first.graph), name
        for one, other in zip(again.graph.variables(), first.graph.variables(), strict=True):
            assert (one.name, one.trainable, one.kind) == (other.name, other.trainable, other.kind)
            assert one.storage.load().tobytes() == other.storage.load().tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_model_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    found = read_literally(saved(randomised(MODELS["attention"]()), tmp_path / "model.keras"))
    one, other = (rewritten(found, tmp_path / f"{name}{suffix}") for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_provenance_is_kept(tmp_path: Path) -> None:
    found = read_literally(saved(MODELS["functional"](), tmp_path / "model.keras"))
    word = {"version": "1", "ties": ["a <- b"]}
    write_keras(found.graph, tmp_path / "out.keras", provenance=word)
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        assert json.loads(archive.read("metadata.json"))["tiesurgeon"] == word
    write_h5(found.graph, tmp_path / "out.h5", provenance=word)
    with h5py.File(tmp_path / "out.h5") as file:
        assert json.loads(file.attrs["tiesurgeon"]) == word


def test_a_config_beyond_64_kilobytes(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(20_000)]
    x = keras.Input((1,), dtype="string")
    made = keras.Model(x, L.StringLookup(vocabulary=words)(x))
    found = read_literally(saved(made, tmp_path / "model.keras"))
    again = loaded(rewritten(found, tmp_path / "out.h5"))
    asked = keras.ops.convert_to_tensor([["word19999"]])
    np.testing.assert_array_equal(again(asked), [[20_000]])


def test_operations_reload_from_h5_though_those_of_keras_do_not(tmp_path: Path) -> None:
    made = randomised(MODELS["operations"]())
    path = saved(made, tmp_path / "model.h5")
    with pytest.raises(Exception, match=r"Unknown|could not|unrecognized|not"):
        loaded(path)
    found = read_literally(path)
    again = loaded(rewritten(found, tmp_path / "out.h5"))
    assert difference(run(again, found.graph), run(made, found.graph)) == 0


def test_no_trace_is_left_beside_the_output(tmp_path: Path) -> None:
    found = read_literally(saved(MODELS["functional"](), tmp_path / "model.keras"))
    rewritten(found, tmp_path / "out.keras")
    assert {path.name for path in tmp_path.iterdir()} == {"model.keras", "out.keras"}


MEMORY = """
import sys
from pathlib import Path
from tiesurgeon.rooms.keras.config import serialise
from tiesurgeon.rooms.keras.read import read
from tiesurgeon.rooms.keras import write
found = read(Path(sys.argv[1]))
def peak():  # not ru_maxrss, which begins with that of the parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if "VmHWM" in line).split()[1])
before = peak()
getattr(write, sys.argv[2])(found.graph, Path(sys.argv[3]), provenance={})
print(peak() - before, int(any(name in sys.modules for name in ("keras", "tensorflow", "torch"))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("writer", ["write_keras", "write_h5"])
def test_memory_stays_far_below_the_models_size(
    writer: str, tmp_path: Path, python_without_frameworks: Any, root: Path
) -> None:
    model, out = tmp_path / "model.h5", tmp_path / f"out.{writer.removeprefix('write_')}"
    write_h5(large(400 << 20), model, provenance={})
    done = python_without_frameworks(MEMORY, model, writer, out, cwd=root)
    grown, frameworks = map(int, done.stdout.split())
    assert grown < 60 << 10
    assert frameworks == 0
    assert out.stat().st_size > 400 << 20
    for path in (model, out):
        path.unlink()


def large(size: int) -> Graph:
    """A model of one embedding; its numbers are one row, repeated without memory."""
    rows = size // (4 * 256)
    row = np.arange(256, dtype="float32")
    storage = Storage("row", (rows, 256), row.dtype, lambda: np.broadcast_to(row, (rows, 256)))
    view = View("embeddings", Variable("table/embeddings", storage))
    config = {"name": "table", "input_dim": rows, "output_dim": 256}
    table = Layer("table", "Embedding", config, (view,), entry={"module": "keras.layers"})
    return Graph("model", "Sequential", (table,))
