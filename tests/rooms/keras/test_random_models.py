"""Random language models, tied: whatever stands between embedding and head, the proof holds.

A longer run: TIESURGEON_RANDOM_MODELS=500 pytest tests/rooms/keras/test_random_models.py
"""

import os
import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tiesurgeon import operations

pytestmark = pytest.mark.usefixtures("proof_here")

layers = keras.layers
COUNT = int(os.environ.get("TIESURGEON_RANDOM_MODELS", "12"))


def model(rng: random.Random) -> Any:
    """Embedding `emb`, up to four layers of many kinds, Dense `out`."""
    vocabulary, width, steps = rng.choice([11, 13]), rng.choice([3, 5, 7]), rng.choice([5, None])
    policy = rng.choice(["float32"] * 6 + ["mixed_bfloat16", "float64"])
    tokens = layers.Input((steps,), dtype=rng.choice(["int32", "float32"]), name="tokens")
    table = layers.Embedding(
        vocabulary, width, mask_zero=rng.random() < 0.5, name="emb", dtype=policy
    )
    x = nested(table, steps)(tokens) if rng.random() < 0.3 else table(tokens)
    for _ in range(rng.randint(0, 4)):
        x = rng.choice(MIDDLES)(x, width, policy, rng)
    head = layers.Dense(
        vocabulary,
        activation=rng.choice([None, "softmax", "sigmoid", "gelu"]),
        use_bias=rng.random() < 0.8,
        kernel_regularizer=rng.choice([None, "l2"]),
        bias_regularizer=rng.choice([None, "l1"]),
        name="out",
        dtype=policy,
    )
    wrapped = layers.TimeDistributed(head, name="each", dtype=policy)
    y = (wrapped if rng.random() < 0.3 else head)(x)
    outputs = rng.choice(
        [y, y, [y, layers.Dense(2, name="aux", dtype=policy)(x)], {"b": y, "a": x}]
    )
    return keras.Model(tokens if rng.random() < 0.8 else {"tokens": tokens}, outputs, name="lm")


def nested(table: Any, steps: int | None) -> Any:
    ids = layers.Input((steps,), dtype="int32", name="ids")
    return keras.Model(ids, table(ids), name="body")


MIDDLES: list[Any] = [
    lambda x, n, p, rng: layers.LSTM(n, return_sequences=True, dtype=p)(x),
    lambda x, n, p, rng: layers.Bidirectional(
        layers.GRU(n, return_sequences=True, dtype=p),
        merge_mode=rng.choice(["sum", "ave"]),
        dtype=p,
    )(x),
    lambda x, n, p, rng: layers.Dropout(0.3, dtype=p)(x),
    lambda x, n, p, rng: layers.LayerNormalization(dtype=p)(x),
    lambda x, n, p, rng: layers.BatchNormalization(dtype=p)(x),
    lambda x, n, p, rng: layers.Dense(n, activation="relu", dtype=p)(x),
    lambda x, n, p, rng: layers.Add(dtype=p)([x, layers.Dense(n, dtype=p)(x)]),
    lambda x, n, p, rng: layers.MultiHeadAttention(2, 3, dtype=p)(
        x, x, use_causal_mask=rng.random() < 0.5
    ),
    lambda x, n, p, rng: layers.TimeDistributed(layers.Dense(n, dtype=p), dtype=p)(x),
    lambda x, n, p, rng: layers.Activation("tanh", dtype=p)(x),
]


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_random_model_is_tied(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    built = model(rng)
    values = np.random.default_rng(seed)
    for variable in built.weights:
        variable.assign(np.abs(values.standard_normal(variable.shape)) * 0.3)
    source = tmp_path / f"model{rng.choice(['.keras', '.h5'])}"
    built.save(source)

    outcome = operations.tie(
        source,
        [("emb", "out")],
        method="mean",
        output=tmp_path / f"tied{rng.choice(['.keras', '.h5'])}",
    )

    assert outcome.proof.reread
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.poke
    assert outcome.proof.step is not False
    assert outcome.parameters[1] < outcome.parameters[0]
