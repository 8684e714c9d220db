"""The sample model in Keras 2 (`tf_keras`), whose files Keras 3 cannot always read."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tasks import Array, Examples
from text import CHARACTERS, SEED
from tf_keras import layers

Model = Any  # tf_keras carries no type annotations


def start() -> None:
    """Fix everything that could make two runs differ."""
    tf.config.experimental.enable_op_determinism()
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(SEED)


def keras2_lm(train: Examples) -> Model:
    """A Sequential model that fills in characters, reading in both directions.

    Its config holds `time_major`, which stock Keras 3 refuses.
    """
    width = 64
    model = tf_keras.Sequential(name="keras2_lm")
    model.add(layers.Embedding(len(CHARACTERS), width, name="embedding"))
    lstm = layers.LSTM(width // 2, return_sequences=True, name="lstm")
    model.add(layers.Bidirectional(lstm, name="bidirectional"))
    model.add(layers.Dense(len(CHARACTERS), activation="softmax", name="dense"))
    adam = tf_keras.optimizers.Adam(3e-3)
    model.compile(adam, "sparse_categorical_crossentropy", weighted_metrics=[])
    rows = {"sample_weight": train.weights, "batch_size": 64, "epochs": 10}
    model.fit(train.inputs["tokens"], train.targets, verbose=0, **rows)
    return model


def save(model: Model, path: Path) -> None:
    """Write the model as .h5."""
    model.save(path, include_optimizer=False, save_format="h5")


def load(path: Path) -> Model:
    """Read what `save` wrote."""
    return tf_keras.models.load_model(path, compile=False)


def predict(model: Model, inputs: dict[str, Array]) -> Array:
    """Return the outputs as a numpy array."""
    return np.asarray(model(inputs["tokens"]))


def parameters(model: Model) -> int:
    """Return the number of weights."""
    return int(model.count_params())
