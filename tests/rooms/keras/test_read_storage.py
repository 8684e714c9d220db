"""Weights alone, and all the ways in which numbers and names may lie in a file."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tests.rooms.keras.models import MODELS, vectors
from tests.rooms.keras.stock import check_views, literally, loaded, randomised, rewritten, saved
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.keras.read import read, read_literally

L = keras.layers

# --- weights alone, and with the architecture beside them ------------------------------------


def architecture(made: Any, path: Path) -> Path:
    path.write_text(made.to_json())
    return path


def legacy_weights(made: Any, path: Path) -> Path:
    """A weights-only .h5 as Keras 2 wrote it: the groups of `model_weights` at the root."""
    whole = saved(made, path.with_name("whole.h5"))
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
        for name, value in source["model_weights"].attrs.items():
            target.attrs[name] = value
    return path


@pytest.mark.parametrize("name", ["functional", "sequential", "nested_twice_deep", "attention"])
def test_weights_find_their_layers_in_a_json(name: str, tmp_path: Path) -> None:
    made = randomised(MODELS[name]())
    config = architecture(made, tmp_path / "model.json")
    made.save_weights(tmp_path / "model.weights.h5")
    files = [tmp_path / "model.weights.h5", legacy_weights(made, tmp_path / "weights.h5")]
    for file in files:
        check_views(made, literally(file, config=config))


def test_weights_alone_are_layers_without_a_graph(tmp_path: Path) -> None:
    made = randomised(MODELS["attention"]())
    made.save_weights(tmp_path / "model.weights.h5")
    for file in (tmp_path / "model.weights.h5", legacy_weights(made, tmp_path / "weights.h5")):
        graph = read(file).graph
        assert graph.calls == ()
        sizes = sorted(variable.storage.size for variable in graph.variables())
        assert sizes == sorted(int(np.prod(weight.shape)) for weight in made.weights)
        assert {layer.name for layer in made.layers if layer.weights} <= graph.by_name.keys()
        embedding = next(name for name in graph.by_name if name.startswith("embedding"))
        assert [view.role for view in graph.layer(embedding).views] == ["embeddings"]


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model whose file holds no graph."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = L.Dense(7)
        self.rest = [L.Dense(5), L.Dense(2)]
        self.gain = self.add_weight(name="gain", shape=(3,))

    def call(self, x: Any) -> Any:
        y = self.first(x * self.gain)
        for layer in self.rest:
            y = layer(y)
        return y


def test_a_subclassed_model_has_weights_and_no_calls(tmp_path: Path) -> None:
    made = Subclassed(name="mine")
    made(np.zeros((2, 3), "float32"))
    randomised(made)
    graph = read(saved(made, tmp_path / "model.keras")).graph
    assert graph.op == "Subclassed"
    assert graph.calls == ()
    stored = sorted(v.storage.load().tobytes() for v in graph.variables())
    assert stored == sorted(np.asarray(w.value).tobytes() for w in made.weights)


# --- how numbers and names may lie in the file ------------------------------------------------


def test_lists_of_names_beyond_64_kilobytes(tmp_path: Path) -> None:
    x = y = vectors(3)
    for number in range(100):
        y = L.Dense(3, use_bias=False, name=f"layer_{number:02}_{'x' * 700}")(y)
    made = randomised(keras.Model(x, y))
    path = saved(made, tmp_path / "model.h5")
    with h5py.File(path) as file:
        assert "layer_names1" in file["model_weights"].attrs
    found = read_literally(path)
    check_views(made, found.graph)
    check_views(loaded(rewritten(found, tmp_path / "out.h5")), found.graph)


@pytest.mark.parametrize("options", [{"chunks": True}, {"compression": "gzip", "shuffle": True}])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_chunked_and_compressed_numbers(suffix: str, options: Any, tmp_path: Path) -> None:
    made = randomised(MODELS["functional"]())
    path = saved(made, tmp_path / f"model{suffix}")
    if suffix == ".h5":
        repacked(path, options)
    else:
        inside(path, lambda file: repacked(file, options))
    check_views(made, literally(path))


def repacked(path: Path, options: Any) -> None:
    """The same HDF5 file with its datasets stored otherwise."""
    with h5py.File(path, "r+") as file:
        stored: list[str] = []
        file.visititems(lambda name, item: stored.append(name) if hasattr(item, "dtype") else None)
        for name in stored:
            data = file[name][()]
            if data.shape:
                del file[name]
                file.create_dataset(name, data=data, **options)


def inside(path: Path, change: Callable[[Path], None], **options: Any) -> None:
    """Changes the weights in a `.keras` archive."""
    folder = path.with_name("unpacked")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    change(folder / "model.weights.h5")
    with zipfile.ZipFile(path, "w", **options) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    shutil.rmtree(folder)


def test_a_compressed_archive(tmp_path: Path) -> None:
    made = randomised(MODELS["sequential"]())
    path = saved(made, tmp_path / "model.keras")
    inside(path, lambda _: None, compression=zipfile.ZIP_DEFLATED)
    found = read_literally(path)
    check_views(made, found.graph)
    check_views(loaded(rewritten(found, tmp_path / "out.h5")), found.graph)


@pytest.mark.filterwarnings("ignore")
def test_names_written_on_windows(tmp_path: Path) -> None:
    old = pytest.importorskip("tf_keras")
    made = randomised(old.Sequential([old.Input((3,)), old.layers.Dense(7), old.layers.Dense(2)]))
    path = tmp_path / "model.keras"
    made.save(path)

    def as_on_windows(file: Path) -> None:
        with h5py.File(file, "r+") as weights:
            for number, name in enumerate(("dense", "dense_1")):
                group = weights.create_group(f"layers\\{name}\\vars")
                for index in ("0", "1"):
                    group[index] = made.layers[number].weights[int(index)].numpy()
            del weights["layers"]

    inside(path, as_on_windows)
    check_views(made, literally(path))


def test_names_in_groups_are_believed_before_their_numbers(tmp_path: Path) -> None:
    made = randomised(MODELS["many_of_one_class"]())
    path = saved(made, tmp_path / "model.keras")

    def swapped(file: Path) -> None:
        with h5py.File(file, "r+") as weights:
            weights.move("layers/dense", "layers/other")
            weights.move("layers/dense_7", "layers/dense")
            weights.move("layers/other", "layers/dense_7")

    inside(path, swapped)
    check_views(made, literally(path))


def test_the_list_of_layers_under_its_old_name(tmp_path: Path) -> None:
    """Keras 2.13 wrote it so."""
    made = randomised(MODELS["nested_twice_deep"]())
    path = saved(made, tmp_path / "model.keras")
    old = "_layer_checkpoint_dependencies"

    def renamed(file: Path) -> None:
        with h5py.File(file, "r+") as weights:
            middle = "layers/functional/layers"
            weights.move(f"{middle}/functional/layers", f"{middle}/functional/{old}")
            weights.move(middle, f"layers/functional/{old}")
            weights.move("layers", old)

    inside(path, renamed)
    check_views(made, literally(path))


def test_half_precision_of_both_kinds(tmp_path: Path) -> None:
    found = read_literally(saved(randomised(MODELS["half_precision"]()), tmp_path / "m.keras"))
    kinds = {variable.storage.dtype.name for variable in found.graph.variables()}
    assert kinds == {"float16", "bfloat16", "float32"}
    again = loaded(rewritten(found, tmp_path / "out.keras"))
    assert {w.dtype for w in again.weights} == kinds


def test_numbers_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    path = saved(MODELS["functional"](), tmp_path / "model.h5")
    graph = literally(path)
    path.unlink()
    assert graph.layers[1].views[0].shape
    with pytest.raises(OSError, match="No such file"):
        graph.layers[1].views[0].load()


def test_a_json_that_is_no_model_is_refused(tmp_path: Path) -> None:
    made = MODELS["functional"]()
    made.save_weights(tmp_path / "model.weights.h5")
    other = tmp_path / "package.json"
    other.write_text(json.dumps({"name": "x"}))
    with pytest.raises(Exception, match=r"package\.json: .*no class_name"):
        read(tmp_path / "model.weights.h5", config=other)
    with pytest.raises(UnreadableFile, match="there is no such file"):
        read(tmp_path / "model.weights.h5", config=tmp_path / "none.json")
