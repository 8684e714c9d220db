"""How a model was compiled travels with it, from every format into every other."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.rooms.keras.models import MODELS, vectors
from tests.rooms.keras.stock import loaded, rewritten, saved
from tiesurgeon.rooms.keras.read import KerasFile, read, read_literally
from tiesurgeon.rooms.keras.training import as_compiled

L = keras.layers
SUFFIXES = (".keras", ".h5")


def compiled(**options: Any) -> Any:
    x = vectors(3, name="x")
    made = keras.Model(x, [L.Dense(2, name="a")(x), L.Dense(5, name="b")(x)])
    made.compile(**options)
    made.optimizer.build(made.trainable_variables)
    made.optimizer.iterations.assign(7)
    return made


COMPILED: dict[str, Any] = {
    "words": {"optimizer": "rmsprop", "loss": ["mse", "mae"], "metrics": [["mae"], ["mse"]]},
    "objects": {
        "optimizer": keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 1)),
        "loss": [keras.losses.BinaryCrossentropy(label_smoothing=0.25), "mse"],
        "metrics": [[keras.metrics.RootMeanSquaredError()], []],
        "loss_weights": [1.0, 0.5],
    },
    "by name": {
        "optimizer": keras.optimizers.AdamW(0.1, weight_decay=0.2),
        "loss": {"a": keras.losses.MeanSquaredError(), "b": "mse"},
        "weighted_metrics": {"a": ["mae"]},
    },
}


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_models_come_back_compiled(
    name: str, source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**COMPILED[name]}
    if not isinstance(options["optimizer"], str):
        options["optimizer"] = options["optimizer"].from_config(options["optimizer"].get_config())
    made = compiled(**options)
    before = made.get_compile_config()
    found = read_literally(saved(made, tmp_path / f"model{source}"))
    for suffix in SUFFIXES:
        caplog.clear()
        path = rewritten(found, tmp_path / f"out{suffix}")
        with caplog.at_level(logging.WARNING):
            again = loaded(path, compile=True)
        # Keras says that of every compiled .h5, its own included.
        assert all("compiled metrics have yet" in record.msg for record in caplog.records)
        after = again.get_compile_config()
        assert after["optimizer"]["class_name"] == before["optimizer"]["class_name"]
        ours, theirs = after["optimizer"]["config"], before["optimizer"]["config"]
        assert {k: v for k, v in ours.items() if k != "name"} == {
            k: v for k, v in theirs.items() if k != "name"
        }
        given, wanted = np.ones((4, 3)), [np.zeros((4, 2)), np.zeros((4, 5))]
        losses = [float(model.compute_loss(given, wanted, model(given))) for model in (made, again)]
        assert losses[0] == losses[1] > 0
        if suffix == ".keras":
            assert len(again.optimizer.variables) > 2
            assert int(again.optimizer.iterations) == 0


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.5},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "Adagrad": {"initial_accumulator_value": 0.25},
    "Adadelta": {},
    "Adamax": {},
    "Lamb": {},
    "Lion": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_begins_afresh(name: str, tmp_path: Path) -> None:
    """With the state that Keras would give it; a missing one would be warned about."""
    made = compiled(optimizer=getattr(keras.optimizers, name)(**OPTIMIZERS[name]), loss="mse")
    made.get_layer("a").trainable = False
    made.compile(made.optimizer.from_config(made.optimizer.get_config()), loss="mse")
    found = read_literally(saved(made, tmp_path / "model.keras"))
    again = loaded(rewritten(found, tmp_path / "out.keras"), compile=True)
    fresh = made.optimizer.from_config(made.optimizer.get_config())
    fresh.build(made.trainable_variables)
    for one, other in zip(again.optimizer.variables, fresh.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", SUFFIXES)
def test_what_keras_2_compiled_keras_3_compiles(source: str, tmp_path: Path) -> None:
    old = pytest.importorskip("tf_keras")
    made = old.Sequential([old.Input((3,)), old.layers.Dense(2)])
    loss = old.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(old.optimizers.Adam(0.25), loss, metrics=["accuracy"])
    made.train_on_batch(np.zeros((4, 3)), np.zeros(4))
    made.save(tmp_path / f"model{source}")
    found = read(tmp_path / f"model{source}")
    for suffix in SUFFIXES:
        again = loaded(rewritten(found, tmp_path / f"out{suffix}"), compile=True)
        assert again.optimizer.learning_rate == 0.25
        assert again.loss.from_logits is True
        again.train_on_batch(np.zeros((4, 3)), np.zeros(4))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, None),
        ({"loss": "mse"}, None),
        ({"optimizer_config": {"class_name": "TFOptimizer", "config": {}}, "loss": "mse"}, None),
        ({"optimizer_config": ["Adam"]}, None),
        ("adam", None),
        (
            {
                "optimizer_config": {
                    "class_name": "Adam",
                    "config": {"lr": 0.5, "decay": 0.0, "epsilon": None},
                },
                "loss": "mse",
                "metrics": ["acc"],
                "sample_weight_mode": None,
            },
            {"learning_rate": 0.5},
        ),
    ],
)
def test_training_of_older_keras_is_understood_or_dropped(stored: Any, expected: Any) -> None:
    found = as_compiled(stored)
    assert (None if found is None else found["optimizer"]["config"]) == expected


def test_the_training_of_a_file_travels_with_it(tmp_path: Path) -> None:
    made = MODELS["functional"]()
    assert read(saved(made, tmp_path / "model.keras")).training is None
    made.compile("adam", "mse")
    found: KerasFile = read(saved(made, tmp_path / "model.keras"))
    assert found.training is not None
    assert found.training["loss"] == "mse"
