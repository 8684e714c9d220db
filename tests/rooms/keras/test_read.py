"""Files of Keras 3 and 2 in every form, read without Keras and compared with what it holds."""

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

from tests.rooms.keras.stock import (
    check_views,
    difference,
    literally,
    loaded,
    randomised,
    rewritten,
    run,
    saved,
)
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Value
from tiesurgeon.rooms.keras.read import read, read_literally

L = keras.layers
MODELS: dict[str, Callable[[], Any]] = {}


def model(build: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[build.__name__] = build
    return build


def vectors(*shape: int, name: str | None = None) -> Any:
    return keras.Input(shape or (5, 3), name=name)


def ids(name: str | None = None) -> Any:
    return keras.Input((5,), dtype="int32", name=name)


@model
def functional() -> Any:
    x = vectors()
    y = L.LayerNormalization()(L.Dense(7, activation="relu")(x))
    return keras.Model(x, L.Add()([L.Dense(3)(y), x]))


@model
def sequential() -> Any:
    return keras.Sequential([ids(), L.Embedding(11, 3), L.GRU(7), L.Dropout(0.5), L.Dense(2)])


@model
def sequential_built_later() -> Any:
    made = keras.Sequential([L.Dense(7), L.BatchNormalization(), L.Dense(2)])
    made.build((None, 5, 3))
    return made


def inner_model(name: str, width: int = 3) -> Any:
    x = vectors(5, width)
    y = L.BatchNormalization(name="norm")(L.Dense(7, name="first")(x))
    return keras.Model(x, L.Dense(width, name="second")(y), name=name)


@model
def nested_twice_deep() -> Any:
    x = vectors()
    core = inner_model("core")
    y = vectors()
    middle = keras.Model(y, L.Dense(3, name="after")(core(y)), name="middle")
    return keras.Model(x, L.Dense(2, name="last")(middle(x)))


@model
def nested_called_twice() -> Any:
    one, two = vectors(name="one"), vectors(name="two")
    core = inner_model("core")
    return keras.Model([one, two], L.Subtract()([core(core(one)), core(two)]))


@model
def nested_in_steps() -> Any:
    x = keras.Input((2, 5, 3))
    return keras.Model(x, L.TimeDistributed(inner_model("core"))(x))


@model
def sequential_in_sequential() -> Any:
    core = keras.Sequential([L.Dense(7), L.BatchNormalization(), L.Dense(3)], name="core")
    return keras.Sequential([vectors(), L.Dense(3), core, L.Dense(2)])


@model
def shared_layers() -> Any:
    one, two = ids("one"), ids("two")
    table, encoder = L.Embedding(11, 3), L.LSTM(7)
    left, right = encoder(table(one)), encoder(table(two))
    return keras.Model([one, two], L.Dense(2)(L.Concatenate()([left, right])))


@model
def several_outputs() -> Any:
    one, two = vectors(name="one"), vectors(5, 2, name="two")
    first = L.Dense(3, name="first")(one)
    return keras.Model([one, two], [L.Concatenate(name="second")([first, two]), first, two])


@model
def dicts() -> Any:
    given = {"one": vectors(name="one"), "two": vectors(5, 2, name="two")}
    y = L.Concatenate()([given["one"], given["two"]])
    return keras.Model(given, {"wide": L.Dense(7)(y), "narrow": L.Dense(2)(y)})


@model
def nested_with_several_ends() -> Any:
    a, b = vectors(name="a"), vectors(name="b")
    core = keras.Model([a, b], [L.Dense(3, name="x")(a), L.Dense(2, name="y")(b)], name="core")
    one, two = vectors(name="one"), vectors(name="two")
    first, second = core([one, two])
    _, third = core([first, two])
    return keras.Model([one, two], [L.Concatenate()([first, second]), third])


@model
def recurrent_states() -> Any:
    one, two = ids("one"), ids("two")
    table = L.Embedding(11, 3, mask_zero=True)
    _, h, c = L.LSTM(5, return_state=True, name="encoder")(table(one))
    y = L.LSTM(5, return_sequences=True, name="decoder")(table(two), initial_state=[h, c])
    return keras.Model([one, two], L.TimeDistributed(L.Dense(11), name="head")(y))


@model
def operations() -> Any:
    x = vectors()
    y = keras.ops.concatenate([x, x * 2.0 + 1.0], axis=-1)
    return keras.Model(x, L.Dense(2)(keras.ops.transpose(y, (0, 2, 1))[:, 1:4]))


@model
def attention() -> Any:
    x = ids()
    y = L.Embedding(11, 6)(x)
    y = L.LayerNormalization()(y + L.MultiHeadAttention(2, 5)(y, y, use_causal_mask=True))
    return keras.Model(x, L.Dense(11)(y))


@model
def many_of_one_class() -> Any:
    x = y = vectors()
    for number in reversed(range(12)):  # named against their order
        y = L.Dense(3, name=f"dense_{number}")(y)
    return keras.Model(x, y)


@model
def half_precision() -> Any:
    x = vectors()
    y = L.Dense(7, dtype="float16")(x)
    y = L.Dense(7, dtype="bfloat16")(y)
    return keras.Model(x, L.Dense(2, dtype="mixed_bfloat16")(y))


def all_frozen(made: Any) -> None:
    made.trainable = False


def every_second_frozen(made: Any) -> None:
    for layer in made._flatten_layers(include_self=False):
        if layer.name in ("first", "norm", "after", "dense_3", "encoder"):
            layer.trainable = False


def frozen_but_inside(made: Any) -> None:
    for layer in made.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = False
            layer.layers[-1].trainable = True


FREEZING = {"trained": None, "frozen": all_frozen, "in part": every_second_frozen}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", MODELS)
def test_models_are_read_as_keras_holds_them(name: str, suffix: str, tmp_path: Path) -> None:
    made = randomised(MODELS[name]())
    for freezing in FREEZING.values():
        if freezing is not None:
            made.trainable = True
            freezing(made)
        graph = literally(saved(made, tmp_path / f"model{suffix}"))
        check_views(made, graph)
        names = [layer.name for layer in graph.layers if layer.op != "InputLayer"]
        listed = made.layers if isinstance(made, keras.Sequential) else made.operations
        kept = [item.name for item in listed if not isinstance(item, L.InputLayer)]
        assert names == kept


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_frozen_model_with_a_trained_layer_inside(suffix: str, tmp_path: Path) -> None:
    made = randomised(MODELS["nested_twice_deep"]())
    frozen_but_inside(made)
    check_views(made, literally(saved(made, tmp_path / f"model{suffix}")))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_reloaded_frozen_attention_is_still_read(suffix: str, tmp_path: Path) -> None:
    """Keras makes attention's parts trainable again when it loads; the order in .h5 changes."""
    x = y = vectors()
    y = L.Dense(3, name="first")(L.MultiHeadAttention(2, 3, name="look")(y, y))
    core = keras.Model(x, y, name="core")
    outer = vectors()
    made = randomised(keras.Model(outer, core(outer)))
    core.trainable = False
    again = loaded(saved(made, tmp_path / "model.keras"))
    randomised(again)
    graph = literally(saved(again, tmp_path / f"again{suffix}"))
    look = graph.layer("core").body
    assert look is not None
    stored = {v.role: v.load() for v in look.layer("look").views}
    true = again.get_layer("core").get_layer("look")
    np.testing.assert_array_equal(stored["query/kernel"], true.query_dense.kernel)
    np.testing.assert_array_equal(stored["output/bias"], true.output_dense.bias)


def test_calls_name_every_use(tmp_path: Path) -> None:
    graph = literally(saved(MODELS["nested_called_twice"](), tmp_path / "model.keras"))
    assert [call.id for call in graph.calls_of("core")] == ["core", "core:1", "core:2"]
    assert graph.call_by_id["core:1"].inputs == (Value("core"),)
    shared = literally(saved(MODELS["shared_layers"](), tmp_path / "shared.h5"))
    assert [len(shared.calls_of(name)) for name in shared.by_name if "lstm" in name] == [2]


def test_structures_are_kept(tmp_path: Path) -> None:
    graph = literally(saved(MODELS["dicts"](), tmp_path / "model.keras"))
    assert set(graph.inputs) == {"one", "two"}
    assert set(graph.outputs) == {"wide", "narrow"}
    several = literally(saved(MODELS["several_outputs"](), tmp_path / "several.h5"))
    assert [value.call for value in several.outputs] == ["second", "first", "two"]


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


# --- Keras 2 -----------------------------------------------------------------------------------


def keras2_models() -> dict[str, Callable[[], Any]]:
    old = pytest.importorskip("tf_keras")
    O = old.layers  # noqa: E741, N806

    def nested() -> Any:
        x = old.Input((5, 3))
        y = O.BatchNormalization(name="norm")(O.Dense(7, name="first")(x))
        core = old.Model(x, O.Dense(3, name="second")(y), name="core")
        outer = old.Input((5, 3))
        return old.Model(outer, O.Dense(2)(core(core(outer))))

    def recurrent() -> Any:
        x = old.Input((5,), dtype="int32")
        y = O.Embedding(11, 3)(x)
        y = O.Bidirectional(O.LSTM(2, return_sequences=True))(y)
        y = O.RNN([O.GRUCell(2), O.LSTMCell(3)], return_sequences=True)(y)
        return old.Model(x, O.TimeDistributed(O.Dense(11))(y))

    def attention() -> Any:
        x = old.Input((5, 3))
        y = O.MultiHeadAttention(2, 5)(x, x)
        return old.Model(x, O.Conv1D(2, 3)(O.LayerNormalization()(y)))

    def sequential() -> Any:
        return old.Sequential([old.Input((5, 3)), O.GRU(7), O.Dense(2), O.Dense(3), O.Dense(5)])

    return {
        "nested": nested,
        "recurrent": recurrent,
        "attention": attention,
        "sequential": sequential,
    }


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["nested", "recurrent", "attention", "sequential"])
@pytest.mark.filterwarnings("ignore")
def test_keras_2_files_compute_the_same_in_keras_3(name: str, suffix: str, tmp_path: Path) -> None:
    made = randomised(keras2_models()[name]())
    if name == "nested":
        made.layers[1].get_layer("first").trainable = False
    made.save(tmp_path / f"model{suffix}")
    found = read_literally(tmp_path / f"model{suffix}")
    again = loaded(rewritten(found, tmp_path / "out.keras"))
    assert difference(run(again, found.graph), run(made, found.graph)) < 1e-6
    stored = sorted(v.storage.load().tobytes() for v in found.graph.variables())
    assert stored == sorted(w.numpy().tobytes() for w in made.weights)


@pytest.mark.parametrize("kind", ["model.h5", "model.weights.h5", "model.keras"])
@pytest.mark.filterwarnings("ignore")
def test_keras_2_weights_of_equal_shape_are_not_mixed_up(kind: str, tmp_path: Path) -> None:
    old = pytest.importorskip("tf_keras")
    x = y = old.Input((3,))
    for name in ("b", "a", "c"):
        y = old.layers.Dense(3, name=name)(y)
    made = randomised(old.Model(x, y))
    file, config = tmp_path / kind, tmp_path / "model.json"
    (made.save_weights if "weights" in kind else made.save)(file)
    config.write_text(made.to_json())
    graph = literally(file, config=config if "weights" in kind else None)
    for name in ("a", "b", "c"):
        kernel = graph.layer(name).view("kernel")
        assert kernel is not None
        np.testing.assert_array_equal(kernel.load(), made.get_layer(name).kernel.numpy())


@pytest.mark.filterwarnings("ignore")
def test_two_models_over_one_layer_are_tied_in_keras_2(tmp_path: Path) -> None:
    old = pytest.importorskip("tf_keras")
    made = two_over_one(old)
    made.save(tmp_path / "model.h5")
    assert_shared(literally(tmp_path / "model.h5"), made)


def test_two_models_over_one_layer_are_tied_in_keras_3(tmp_path: Path) -> None:
    """Keras writes the layer once and cannot load its own file; we know what it meant."""
    made = two_over_one(keras)
    assert_shared(literally(saved(made, tmp_path / "model.keras")), made)


def two_over_one(framework: Any) -> Any:
    table = framework.layers.Embedding(11, 3, name="table")

    def tower(name: str) -> Any:
        x = framework.Input((5,), dtype="int32", name=f"{name}_in")
        return framework.Model(
            x, framework.layers.Dense(2, name=f"{name}_out")(table(x)), name=name
        )

    one = framework.Input((5,), dtype="int32", name="one")
    two = framework.Input((5,), dtype="int32", name="two")
    ends = [tower("left")(one), tower("right")(two)]
    return randomised(framework.Model([one, two], framework.layers.Add()(ends)))


def assert_shared(graph: Graph, made: Any) -> None:
    bodies = [graph.layer(name).body for name in ("left", "right")]
    tables = [body.layer("table").views[0].variable for body in bodies if body is not None]
    assert tables[0] is tables[1]
    true = made.get_layer("left").get_layer("table").weights[0]
    np.testing.assert_array_equal(tables[0].storage.load(), np.asarray(true))
    assert len(graph.variables()) == 5


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


def test_the_writer_is_named(tmp_path: Path) -> None:
    path = saved(MODELS["functional"](), tmp_path / "model.h5")
    assert read(path).writer == f"keras {keras.__version__}"
    saved(MODELS["functional"](), tmp_path / "model.keras")
    assert read(tmp_path / "model.keras").writer == f"keras {keras.__version__}"


def test_a_json_that_is_no_model_is_refused(tmp_path: Path) -> None:
    made = MODELS["functional"]()
    made.save_weights(tmp_path / "model.weights.h5")
    other = tmp_path / "package.json"
    other.write_text(json.dumps({"name": "x"}))
    with pytest.raises(Exception, match=r"package\.json: .*no class_name"):
        read(tmp_path / "model.weights.h5", config=other)
    with pytest.raises(UnreadableFile, match="there is no such file"):
        read(tmp_path / "model.weights.h5", config=tmp_path / "none.json")
