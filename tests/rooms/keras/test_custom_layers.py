"""Layers of users' own, with variables and layers of their own, read and written where possible."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.rooms.keras.models import vectors
from tests.rooms.keras.stock import difference, loaded, randomised, rewritten, run, saved
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Layer
from tiesurgeon.rooms.keras.read import read_literally
from tiesurgeon.rooms.keras.variables import is_known

L = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.Layer):
    """Own variables, one of them frozen, declared in the other order."""

    def build(self, shape: Any) -> None:
        self.steps = self.add_weight(name="steps", shape=(2,), trainable=False)
        self.factor = self.add_weight(name="factor", shape=(shape[-1],))

    def call(self, x: Any) -> Any:
        return x * self.factor + keras.ops.sum(self.steps)


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.Layer):
    """A layer that makes layers for itself."""

    def build(self, shape: Any) -> None:
        self.wide = L.Dense(7, name="wide")
        self.wide.build(shape)
        self.back = L.Dense(shape[-1], name="back")
        self.back.build((*shape[:-1], 7))
        self.gain = self.add_weight(name="gain", shape=())

    def call(self, x: Any) -> Any:
        return self.gain * self.back(self.wide(x))


@keras.saving.register_keras_serializable(package="tests")
class Twofold(L.Wrapper):  # type: ignore[name-defined]
    """A user's wrapper."""

    def call(self, x: Any) -> Any:
        return 2 * self.layer(x)


@keras.saving.register_keras_serializable(package="tests")
class Held(keras.Layer):
    """A wrapper that keeps its layer under a name of its own."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept = layer

    def build(self, shape: Any) -> None:
        if not self.kept.built:
            self.kept.build(shape)

    def call(self, x: Any) -> Any:
        return self.kept(x)

    def get_config(self) -> Any:
        layer = keras.saving.serialize_keras_object(self.kept)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        layer = keras.saving.deserialize_keras_object(config.pop("layer"))
        return cls(layer, **config)


CUSTOM: dict[str, tuple[Callable[[], Any], set[tuple[str, str]]]] = {
    "own variables": (
        lambda: Scaled(),
        {(a, b) for a in (".keras", ".h5") for b in (".keras", ".h5")},
    ),
    "layers inside": (lambda: Block(), {(".keras", ".keras")}),
    "a wrapper": (
        lambda: Twofold(L.Dense(3)),
        {(".keras", ".keras"), (".keras", ".h5"), (".h5", ".h5")},
    ),
    "a wrapper of another kind": (lambda: Held(L.Dense(3)), {(".keras", ".keras"), (".h5", ".h5")}),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", CUSTOM)
def test_custom_layers_are_read_and_written_where_their_place_is_known(
    name: str, suffix: str, tmp_path: Path
) -> None:
    build, possible = CUSTOM[name]
    given = vectors()
    hidden = build()(L.Dense(3, name="first")(given))
    model = randomised(keras.Model(given, L.Dense(2, name="last")(hidden)))
    found = read_literally(saved(model, tmp_path / f"model{suffix}"))
    stored = sorted(v.storage.load().tobytes() for v in found.graph.variables())
    true = sorted(np.asarray(w.value).tobytes() for w in model.weights)
    assert stored == true
    expected = run(model, found.graph)
    for written in (".keras", ".h5"):
        out = tmp_path / f"out{written}"
        if (suffix, written) in possible:
            assert difference(run(loaded(rewritten(found, out)), found.graph), expected) == 0
        else:
            with pytest.raises(UnsupportedFormat, match="not a built-in class"):
                rewritten(found, out)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_custom_layer_in_a_nested_model(suffix: str, tmp_path: Path) -> None:
    """In .h5 its frozen variable stands at the end, behind those of the layers after it."""
    x = vectors()
    core = keras.Model(x, L.Dense(3, name="last")(Scaled(name="mine")(x)), name="core")
    outer = vectors()
    made = randomised(keras.Model(outer, core(outer)))
    found = read_literally(saved(made, tmp_path / f"model{suffix}"))
    body = found.graph.layer("core").body
    assert body is not None
    stored = [view.load() for view in body.layer("mine").views]
    for one, other in zip(stored, core.get_layer("mine").weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    if suffix == ".h5":
        trained = [view.variable.trainable for view in body.layer("mine").views]
        assert trained == [True, False]
        again = loaded(rewritten(found, tmp_path / "out.h5"))
        assert difference(run(again, found.graph), run(made, found.graph)) == 0


def test_a_custom_class_with_a_stock_name_is_not_taken_for_it() -> None:
    mine = Layer("d", "Dense", {"units": 2}, entry={"module": "mine", "registered_name": "Dense"})
    stock = replace(mine, entry={"module": "keras.layers", "registered_name": None})
    assert (is_known(mine), is_known(stock)) == (False, True)
