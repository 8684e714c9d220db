"""Roles in models that Keras really wrote, through the reader. Sizes are distinct primes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiesurgeon.find import Candidate
from tiesurgeon.inspection import inspect

pytest.importorskip("keras")

import keras
from keras import layers, ops

V, H, T = 11, 3, 7
Found = list[tuple[str, str, str, Any]]
Look = Callable[..., Found]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Saves the model and says what `inspect` offers, the same from `.keras` and `.h5`."""

    def saved(model: Any, *suffixes: str) -> Found:
        seen = []
        for suffix in suffixes or ("keras", "h5"):
            path = tmp_path / f"model.{suffix}"
            model.save(path, **({"include_optimizer": False} if suffix == "h5" else {}))
            seen.append([row(candidate) for candidate in inspect(path).candidates])
        assert all(found == seen[0] for found in seen)
        return seen[0]

    return saved


def row(found: Candidate) -> tuple[str, str, str, Any]:
    return found.source, found.target, found.role, found.match


def ids(name: str = "ids") -> Any:
    return keras.Input((T,), dtype="int32", name=name)


def test_a_language_model_with_mask_and_wrapper(look: Look) -> None:
    tokens = ids()
    x = layers.Embedding(V, H, mask_zero=True, name="emb")(tokens)
    x = layers.GRU(H, return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Dense(V, name="dense_out"), name="out")(x)
    model = keras.Model(tokens, layers.Activation("softmax")(x))
    assert look(model) == [("emb", "out", "embedding-output", "different")]
    model.get_layer("out").layer.kernel.assign(model.get_layer("emb").embeddings.numpy().T)
    assert look(model) == [("emb", "out", "embedding-output", "equal")]


def test_a_sequential_square_model(look: Look) -> None:
    stack = [keras.Input((T,), dtype="int32"), layers.Embedding(V, V, name="emb")]
    inside = [layers.Dense(V, name="inside"), layers.LSTM(V, return_sequences=True)]
    model = keras.Sequential([*stack, *inside, layers.Dense(V, name="out")])
    assert look(model) == [("emb", "out", "embedding-output", "different")]


def positions_by_cumsum(tokens: Any) -> Any:
    return ops.cumsum(ops.ones_like(tokens), axis=1) - 1


@pytest.mark.parametrize("count", [positions_by_cumsum, lambda tokens: None])
def test_a_position_table_of_the_same_shape(look: Look, count: Any) -> None:
    tokens = ids()
    counted = count(tokens)
    where = ids("position_ids") if counted is None else counted
    x = layers.Embedding(V, H, name="second")(where)
    x = layers.Add()([layers.Embedding(V, H, name="first")(tokens), x])
    x = layers.MultiHeadAttention(1, H)(x, x)
    out = ops.softmax(layers.Dense(V, name="out")(x))
    model = keras.Model([tokens, where] if counted is None else tokens, out)
    assert look(model, "keras") == [("first", "out", "embedding-output", "different")]


def test_sequence_to_sequence_with_attention(look: Look) -> None:
    source, target = ids("source"), ids("target")
    seen, *states = layers.LSTM(H, return_sequences=True, return_state=True, name="encoder")(
        layers.Embedding(V, H, name="source_table")(source)
    )
    x = layers.Embedding(V, H, name="target_table")(target)
    x = layers.LSTM(H, return_sequences=True, name="decoder")(x, initial_state=states)
    x = layers.Concatenate()([x, layers.Attention()([x, seen])])
    out = layers.Dense(V, name="out")(layers.Dense(H, name="narrow")(x))
    assert look(keras.Model([source, target], out)) == [
        ("target_table", "out", "embedding-output", "different"),
        ("source_table", "out", "embedding-output", "different"),
        ("source_table", "target_table", "embedding-embedding", "different"),
    ]


def test_a_two_tower_model_has_two_tables_and_no_output_of_the_other(look: Look) -> None:
    one, two = ids("one"), ids("two")
    x = layers.Embedding(V, H, name="first")(one)
    y = layers.LSTM(5)(layers.Embedding(13, H, name="second")(two))
    outputs = [layers.Dense(V, name="out")(x), layers.Dense(13, name="other_out")(y)]
    assert look(keras.Model([one, two], outputs)) == [
        ("first", "out", "embedding-output", "different")
    ]


def test_an_autoencoder_and_its_convolutions(look: Look) -> None:
    image = keras.Input((13,), name="x")
    x = image
    for number, units in enumerate((7, 5, 7, 13)):
        x = layers.Dense(units, name=f"d{number}")(x)
    assert look(keras.Model(image, x)) == [
        ("d0", "d3", "dense-dense", "different"),
        ("d1", "d2", "dense-dense", "different"),
    ]
    image = keras.Input((5, 5, 2))
    x = layers.Conv2D(3, 3, name="down")(image)
    model = keras.Model(image, layers.Conv2DTranspose(2, 3, name="up")(x))
    assert look(model) == []
    model.get_layer("up").kernel.assign(model.get_layer("down").kernel)
    assert look(model) == [("down", "up", "conv-convtranspose", "equal")]


def test_a_reversible_embedding_is_tied_and_offers_nothing(tmp_path: Path) -> None:
    tokens = ids()
    table = layers.ReversibleEmbedding(V, H, name="table")
    x = layers.LSTM(H, return_sequences=True)(table(tokens))
    keras.Model(tokens, table(x, reverse=True)).save(tmp_path / "m.keras")
    found = inspect(tmp_path / "m.keras")
    assert [(tie.perm, tie.uses) for tie in found.ties] == [((1, 0), 2)]
    assert found.candidates == ()
    assert found.unique_parameters == found.total_parameters - V * H


def two_models_over_one_embedding() -> Any:
    one, two = ids("one"), ids("two")
    table = layers.Embedding(V, H, name="emb")
    a = keras.Model(one, layers.LSTM(5, name="la")(table(one)), name="a")
    b = keras.Model(two, layers.LSTM(5, name="lb")(table(two)), name="b")
    return keras.Model([one, two], layers.Add()([a(one), b(two)]))


def test_two_nested_models_over_one_embedding(tmp_path: Path) -> None:
    model = two_models_over_one_embedding()
    model.save(tmp_path / "m.keras")
    found = inspect(tmp_path / "m.keras")
    assert {tie.kind for tie in found.ties} == {"tie"}
    assert found.candidates == ()
    model.save(tmp_path / "m.h5")
    (candidate,) = inspect(tmp_path / "m.h5").candidates
    assert {candidate.source, candidate.target} == {"a/emb", "b/emb"}
    assert candidate.match == "equal"
    assert "share twice into .h5" in candidate.reason


class TiedEmbeddingsTransposed(layers.Layer):
    """The recipe of NMT-Keras: it holds a live layer, which no file can keep."""

    def __init__(self, tied_to: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.tied_to = tied_to

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, ops.transpose(self.tied_to.embeddings))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], V)

    def get_config(self) -> Any:
        return {"name": self.name}


def test_the_nmt_keras_recipe_is_declared(look: Look) -> None:
    tokens = ids()
    table = layers.Embedding(V, H, name="emb")
    x = layers.LSTM(H, return_sequences=True)(table(tokens))
    tied = TiedEmbeddingsTransposed(tied_to=table, name="tied")
    model = keras.Model(tokens, layers.TimeDistributed(tied, name="out")(x))
    assert look(model) == [("emb", "out", "embedding-output", "declared")]


class DenseTied(layers.Layer):
    """The autoencoder recipe; `keep` stores the transposed kernel as its own weight."""

    def __init__(self, units: int, tied_to: Any = None, keep: bool = False, **options: Any):
        super().__init__(**options)
        self.units, self.keep = units, keep
        self.source = [tied_to]  # hidden from Keras' tracking, as `object.__setattr__` does

    def build(self, shape: Any) -> None:
        kernel = self.source[0].kernel
        if self.keep:
            self.kept = self.add_weight(shape=kernel.shape[::-1], trainable=False, name="kernel")
            self.kept.assign(ops.transpose(kernel))

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, ops.transpose(self.source[0].kernel))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.units)

    def get_config(self) -> Any:
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize(("keep", "match"), [(False, "declared"), (True, "equal")])
def test_the_dense_tied_recipe(look: Look, keep: bool, match: str) -> None:
    x = keras.Input((13,), name="x")
    encoder = layers.Dense(5, name="encoder")
    model = keras.Model(x, DenseTied(13, encoder, keep, name="decoder")(encoder(x)))
    ((source, target, *rest),) = look(model, "keras")
    assert (source, target, rest) == ("encoder", "decoder", ["dense-dense", match])
    ((source, target, *rest),) = look(model, "h5")
    assert (source, target.split("/")[0], rest) == ("encoder", "decoder", ["dense-dense", match])


def test_optimizer_moments_are_no_candidates(look: Look) -> None:
    tokens = ids()
    x = layers.Embedding(V, H, name="emb")(tokens)
    model = keras.Model(tokens, layers.Dense(V, name="out")(layers.LSTM(H)(x)))
    model.compile("adam", "mse")
    model.fit(np.zeros((2, T), int), np.zeros((2, V)), verbose=0)
    assert look(model, "keras") == [("emb", "out", "embedding-output", "different")]


def test_weights_alone_are_judged_by_name_and_shape(tmp_path: Path) -> None:
    tokens = ids()
    x = layers.Embedding(V, H, name="embedding")(tokens)
    model = keras.Model(tokens, layers.Dense(V, name="out")(layers.LSTM(H, name="lstm")(x)))
    model.save_weights(tmp_path / "m.weights.h5")
    found = inspect(tmp_path / "m.weights.h5")
    assert [row(c) for c in found.candidates] == [
        ("embedding", "out", "embedding-output", "different")
    ]
    assert "no graph" in found.candidates[0].reason
    assert "weights only" in found.warnings[0]
    (tmp_path / "m.json").write_text(model.to_json())
    found = inspect(tmp_path / "m.weights.h5", config=tmp_path / "m.json")
    assert "flows into" in found.candidates[0].reason
    assert not found.warnings


def test_a_subclassed_model_says_why_it_has_no_graph(tmp_path: Path) -> None:
    class Mine(keras.Model):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.embedding = layers.Embedding(V, H)
            self.head = layers.Dense(V)

        def call(self, inputs: Any) -> Any:
            return self.head(self.embedding(inputs))

    model = Mine()
    model(np.zeros((2, T), "int32"))
    model.save(tmp_path / "m.keras")
    found = inspect(tmp_path / "m.keras")
    assert "subclassed" in found.warnings[0]
    assert found.unique_parameters == V * H + H * V + V
