"""Files of Keras 3 in every form, read without Keras and compared with what it holds."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.rooms.keras.models import (
    MODELS,
    all_frozen,
    every_second_frozen,
    frozen_but_inside,
    vectors,
)
from tests.rooms.keras.stock import check_views, literally, loaded, randomised, saved
from tiesurgeon.graph import Value
from tiesurgeon.rooms.keras.read import read

L = keras.layers
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
    x = vectors()
    y = L.MultiHeadAttention(2, 3, name="first")(x, x)
    core = keras.Model(x, L.MultiHeadAttention(2, 3, name="second")(y, y), name="core")
    outer = vectors()
    made = randomised(keras.Model(outer, core(outer)))
    core.get_layer("first").trainable = False
    again = randomised(loaded(saved(made, tmp_path / "model.keras")))
    body = literally(saved(again, tmp_path / f"again{suffix}")).layer("core").body
    assert body is not None
    for name in ("first", "second"):
        stored = {view.role: view.load() for view in body.layer(name).views}
        true = again.get_layer("core").get_layer(name)
        np.testing.assert_array_equal(stored["query/kernel"], true.query_dense.kernel)
        np.testing.assert_array_equal(stored["output/bias"], true.output_dense.bias)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_order_that_no_config_tells_is_read_by_names(suffix: str, tmp_path: Path) -> None:
    """A cell frozen by itself goes last in .h5, and only its name says so."""
    x = vectors()
    y = L.SimpleRNN(3, name="rnn", return_sequences=True)(x)
    core = keras.Model(x, L.Dense(3, name="dense")(y), name="core")
    outer = vectors()
    made = randomised(keras.Model(outer, core(outer)))
    core.get_layer("rnn").cell.trainable = False
    body = literally(saved(made, tmp_path / f"model{suffix}")).layer("core").body
    assert body is not None
    for name in ("rnn", "dense"):
        stored = [view.load() for view in body.layer(name).views]
        for one, other in zip(stored, core.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(one, other.numpy())


def test_calls_name_every_use(tmp_path: Path) -> None:
    graph = literally(saved(MODELS["nested_called_twice"](), tmp_path / "model.keras"))
    assert [call.id for call in graph.calls_of("core")] == ["core", "core:1", "core:2"]
    assert graph.call_by_id["core:1"].inputs == (Value("core"),)
    shared = literally(saved(MODELS["shared_layers"](), tmp_path / "shared.h5"))
    assert [len(shared.calls_of(name)) for name in shared.by_name if "lstm" in name] == [2]


def test_structures_are_kept(tmp_path: Path) -> None:
    graph = literally(saved(MODELS["dicts"](), tmp_path / "model.keras"))
    assert list(graph.inputs) == ["one", "two"]
    assert list(graph.outputs) == ["narrow", "wide"]  # sorted, as Keras numbers them
    several = literally(saved(MODELS["several_outputs"](), tmp_path / "several.h5"))
    assert [value.call for value in several.outputs] == ["second", "first", "two"]


def test_the_writer_is_named(tmp_path: Path) -> None:
    path = saved(MODELS["functional"](), tmp_path / "model.h5")
    assert read(path).writer == f"keras {keras.__version__}"
    saved(MODELS["functional"](), tmp_path / "model.keras")
    assert read(tmp_path / "model.keras").writer == f"keras {keras.__version__}"
