"""The ways in which people tie weights today, built as their users build them.

Each is inspected, tied or kept tied, and loaded by stock Keras or PyTorch without the class
that its author needed.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tiesurgeon import operations
from tiesurgeon.errors import TieRefused, UnmappedLayer
from tiesurgeon.inspection import Inspections, inspect, inspect_many
from tiesurgeon.outcome import Outcome

pytestmark = pytest.mark.usefixtures("proof_here")

layers = keras.layers
ops = keras.ops
V, H, T = 11, 3, 5


@keras.saving.register_keras_serializable("nmt")
class TiedEmbeddingsTransposed(keras.Layer):
    """NMT-Keras' layer: `softmax(x @ E.T)` over the matrix of a live embedding layer."""

    def __init__(self, tied_to: Any = None, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.__dict__["tied_to"] = tied_to  # not tracked: the embedding owns its weights
        self.activation = keras.activations.get(activation)

    def call(self, inputs: Any) -> Any:
        return self.activation(ops.matmul(inputs, ops.transpose(self.tied_to.embeddings)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], V)

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation}


@keras.saving.register_keras_serializable("posts")
class DenseTied(keras.Layer):
    """The autoencoder posts' layer: the encoder's kernel transposed, with a bias of its own."""

    def __init__(
        self,
        units: int,
        tied_to: Any = None,
        use_bias: bool = True,
        keep: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.use_bias, self.keep = units, use_bias, keep
        self.__dict__["tied_to"] = tied_to

    def build(self, input_shape: Any) -> None:
        if self.keep:  # some versions list the transposed kernel among their own weights
            self.kernel = self.add_weight(
                name="kernel", shape=(input_shape[-1], self.units), trainable=False
            )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        product = ops.matmul(inputs, ops.transpose(self.tied_to.kernel))
        return product + self.bias if self.use_bias else product

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}


@keras.saving.register_keras_serializable("posts")
class TrackedDenseTied(keras.Layer):
    """The same with the encoder as a plain attribute: Keras 3 tracks it as a part of this layer,
    and writes a copy of its weights into an .h5."""

    def __init__(self, units: int, tied_to: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.tied_to = units, tied_to

    def build(self, input_shape: Any) -> None:
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, ops.transpose(self.tied_to.kernel)) + self.bias

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("posts")
class SharedWeightDense(keras.Layer):
    """A Dense over a variable that was made elsewhere and is handed in."""

    def __init__(self, kernel: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel = kernel

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, self.kernel)

    def get_config(self) -> dict[str, Any]:
        return layers.Layer.get_config(layers.Layer(name=self.name))


def saved(model: Any, path: Path) -> Path:
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.standard_normal(variable.shape) * 0.7)
    model.save(path)
    return path


def stock(path: Path) -> Any:
    """Loaded with none of the classes of this file."""
    with keras.saving.custom_object_scope({}):
        return keras.models.load_model(path, compile=False)


def assert_tied(outcome: Outcome) -> None:
    assert outcome.proof.reread
    assert outcome.proof.poke
    assert outcome.proof.step
    assert outcome.parameters[1] < outcome.parameters[0]


def nmt(tmp_path: Path, suffix: str) -> tuple[Path, Any]:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    embedding = layers.Embedding(V, H, name="embedding")
    x = layers.LSTM(H, return_sequences=True, name="lstm")(embedding(tokens))
    head = TiedEmbeddingsTransposed(tied_to=embedding, activation="softmax", name="transposed")
    model = keras.Model(tokens, layers.TimeDistributed(head, name="output")(x))
    return saved(model, tmp_path / f"nmt{suffix}"), model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["output", "transposed"])
def test_nmt_keras_tied_embeddings_transposed(tmp_path: Path, suffix: str, name: str) -> None:
    path, model = nmt(tmp_path, suffix)
    x = np.arange(2 * T).reshape(2, T) % V
    with pytest.raises(Exception, match="NoneType"):  # tied_to was a live layer
        keras.models.load_model(path, compile=False)(x)

    outcome = operations.tie(path, [("embedding", name)], output=tmp_path / f"out{suffix}")

    assert outcome.proof.reread
    assert any("TiedEmbeddingsTransposed" in warning for warning in outcome.warnings)
    tied = stock(tmp_path / f"out{suffix}")
    np.testing.assert_allclose(tied(x), model(x), atol=1e-6)
    assert tied.count_params() == model.count_params()
    tied.get_layer("embedding").embeddings.assign_add(np.ones((V, H)))
    model.get_layer("embedding").embeddings.assign_add(np.ones((V, H)))
    np.testing.assert_allclose(tied(x), model(x), atol=1e-6)


def test_nmt_keras_is_found_by_inspect(tmp_path: Path) -> None:
    path, _ = nmt(tmp_path, ".keras")
    candidate = inspect(path).candidates[0]
    assert (candidate.source, candidate.match) == ("embedding", "declared")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "options", [{}, {"use_bias": False}, {"keep": False}, {"keep": False, "use_bias": False}]
)
def test_dense_tied_autoencoders(tmp_path: Path, suffix: str, options: Any) -> None:
    x = layers.Input((7,), name="x")
    encoder = layers.Dense(3, activation="tanh", name="encoder")
    model = keras.Model(x, DenseTied(7, tied_to=encoder, name="decoder", **options)(encoder(x)))
    path = saved(model, tmp_path / f"ae{suffix}")
    if options.get("keep", True):  # as the posts' class leaves it in the file
        decoder = model.get_layer("decoder")
        decoder.kernel.assign(np.transpose(encoder.kernel))
        model.save(path)

    operations.tie(path, [("encoder", "decoder")], output=tmp_path / f"out{suffix}")

    data = np.random.default_rng(1).standard_normal((2, 7)).astype("float32")
    tied = stock(tmp_path / f"out{suffix}")
    np.testing.assert_allclose(tied(data), model(data), atol=1e-6)
    assert sum(int(np.prod(v.shape)) for v in tied.trainable_variables) == 21 + 3 + (
        7 if options.get("use_bias", True) else 0
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_dense_tied_that_keras_tracks(tmp_path: Path, suffix: str) -> None:
    x = layers.Input((7,), name="x")
    encoder = layers.Dense(3, activation="tanh", name="encoder")
    model = keras.Model(x, TrackedDenseTied(7, tied_to=encoder, name="decoder")(encoder(x)))
    path = saved(model, tmp_path / f"ae{suffix}")

    operations.tie(path, [("encoder", "decoder")], output=tmp_path / f"out{suffix}")

    data = np.random.default_rng(1).standard_normal((2, 7)).astype("float32")
    tied = stock(tmp_path / f"out{suffix}")
    np.testing.assert_allclose(tied(data), model(data), atol=1e-6)
    assert tied.count_params() == 21 + 3 + 7


def two_inputs(name: str) -> tuple[Any, Any]:
    a = layers.Input((T,), dtype="int32", name=f"{name}_a")
    b = layers.Input((T,), dtype="int32", name=f"{name}_b")
    return a, b


def one_embedding_on_two_inputs() -> Any:
    a, b = two_inputs("in")
    table = layers.Embedding(V, H, name="table")
    return keras.Model([a, b], layers.Add(name="sum")([table(a), table(b)]))


def siamese() -> Any:
    a, b = two_inputs("in")
    table, lstm = layers.Embedding(V, H, name="table"), layers.LSTM(H, name="lstm")
    near = layers.Dot(-1, normalize=True, name="cosine")([lstm(table(a)), lstm(table(b))])
    return keras.Model([a, b], layers.Dense(1, activation="sigmoid", name="same")(near))


def multi_input() -> Any:
    a, b = two_inputs("in")
    table = layers.Embedding(V, H, name="table")
    pooled = [layers.Flatten()(table(x)) for x in (a, b)]
    return keras.Model([a, b], layers.Dense(2, name="out")(layers.Concatenate()(pooled)))


def nested_over_one_embedding() -> Any:
    table = layers.Embedding(V, H, name="table")

    def tower(name: str) -> Any:
        x = layers.Input((T,), dtype="int32", name=f"{name}_in")
        pooled = layers.Flatten(name=f"{name}_flat")(table(x))
        return keras.Model(x, layers.Dense(2, name=f"{name}_out")(pooled), name=name)

    a, b = two_inputs("in")
    return keras.Model([a, b], layers.Add(name="sum")([tower("left")(a), tower("right")(b)]))


SHARED = [one_embedding_on_two_inputs, siamese, multi_input, nested_over_one_embedding]


@pytest.mark.parametrize("build", SHARED)
def test_a_shared_embedding_is_recognised_and_kept(build: Any, tmp_path: Path) -> None:
    model = build()
    path = saved(model, tmp_path / "model.keras")

    found = inspect(path)
    assert any("table" in tie.source for tie in found.ties)
    total = sum(int(np.prod(v.shape)) for v in model.weights)
    assert found.unique_parameters == total

    a = np.arange(2 * T).reshape(2, T) % V
    expected = np.asarray(model([a, a[::-1]]))
    for to in ("h5", "keras"):
        operations.convert(path, to, output=tmp_path / f"again.{to}")
        again = stock(tmp_path / f"again.{to}")
        assert again.count_params() == total
        np.testing.assert_allclose(again([a, a[::-1]]), expected, atol=1e-6)
    outcome = operations.convert(path, "torch", output=tmp_path / "torch")
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-5
    assert outcome.parameters == (total, total)


def test_two_files_over_one_embedding_are_told_by_their_bits(tmp_path: Path) -> None:
    a, b = two_inputs("in")
    table = layers.Embedding(V, H, name="table")
    left = keras.Model(a, layers.Flatten()(table(a)))
    right = keras.Model(b, layers.Dense(2)(layers.Flatten()(table(b))))
    paths = [saved(left, tmp_path / "a.h5"), tmp_path / "b.h5"]
    right.save(paths[1])

    found = inspect_many(paths)
    assert isinstance(found, Inspections)
    pairs = {(c.source, c.target, c.match) for c in found.between}
    assert ("a:table", "b:table", "equal") in pairs


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_one_variable_in_two_custom_layers_is_reported_as_the_file_has_it(
    tmp_path: Path, suffix: str
) -> None:
    kernel = keras.Variable(np.ones((3, 3)), name="kernel")
    x = layers.Input((3,), name="x")
    y = SharedWeightDense(kernel, name="one")(x)
    model = keras.Model(x, SharedWeightDense(kernel, name="two")(y))
    path = saved(model, tmp_path / f"m{suffix}")

    found = inspect(path)
    assert not found.ties  # Keras wrote two copies; once loaded they are two
    assert found.total_parameters == 18
    equal = [c for c in found.candidates if c.match == "equal"]
    assert [(c.source, c.target) for c in equal] == [("one", "two")]


def test_dense_layers_over_one_variable_are_tied_as_duplicates(tmp_path: Path) -> None:
    a, b = layers.Input((7,), name="a"), layers.Input((7,), name="b")
    model = keras.Model([a, b], [layers.Dense(3, name="one")(a), layers.Dense(3, name="two")(b)])
    path = saved(model, tmp_path / "m.keras")
    one, two = model.get_layer("one"), model.get_layer("two")
    two.kernel.assign(one.kernel)
    model.save(path)

    outcome = operations.tie(path, duplicates=True, output=tmp_path / "out.keras")

    assert_tied(outcome)
    assert outcome.proof.max_abs_diff == pytest.approx(0, abs=1e-6)


def test_one_kernel_used_as_dense_and_as_convolution_is_refused_by_name(tmp_path: Path) -> None:
    x = layers.Input((7, 3), name="x")
    y = layers.Conv1D(5, 1, use_bias=False, name="conv")(x)
    model = keras.Model(x, [y, layers.Dense(5, use_bias=False, name="dense")(x)])
    path = saved(model, tmp_path / "m.keras")
    kernel = model.get_layer("dense").get_weights()[0]
    model.get_layer("conv").set_weights([kernel[None]])
    model.save(path)

    with pytest.raises(Exception, match=r"\(3, 5\)") as caught:
        operations.tie(path, [("conv", "dense")], output=tmp_path / "out.keras")
    assert "(1, 3, 5)" in str(caught.value)


def test_weights_held_equal_by_a_constraint_are_tied_for_real(tmp_path: Path) -> None:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    embedding = layers.Embedding(V, H, name="embedding")
    x = layers.GRU(H, return_sequences=True, name="gru")(embedding(tokens))
    model = keras.Model(tokens, layers.Dense(V, activation="softmax", name="dense")(x))
    path = saved(model, tmp_path / "m.h5")
    head = model.get_layer("dense")  # what the constraint did on every update
    head.kernel.assign(np.transpose(embedding.embeddings))
    model.save(path)

    best = inspect(path).candidates[0]
    assert (best.source, best.target, best.match) == ("embedding", "dense", "equal")
    outcome = operations.tie(path, duplicates=True, output=tmp_path / "out.h5")
    assert_tied(outcome)


def test_a_lambda_is_tied_statically_and_not_converted(tmp_path: Path) -> None:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, name="embedding")(tokens)
    x = layers.Lambda(lambda t: t * 2.0, output_shape=(T, H), name="twice")(x)
    model = keras.Model(tokens, layers.Dense(V, name="dense")(x))
    path = saved(model, tmp_path / "m.keras")

    outcome = operations.tie(
        path, [("embedding", "dense")], method="keep-source", output=tmp_path / "out.keras"
    )
    assert outcome.proof.reread
    assert outcome.proof.max_abs_diff is None
    assert any("Lambda" in warning for warning in outcome.warnings)
    with pytest.raises(UnmappedLayer, match="twice"):
        operations.convert(path, "torch", output=tmp_path / "torch")


def test_fastai_way_in_torch_comes_out_of_a_tied_keras_model(tmp_path: Path) -> None:
    tokens = layers.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, name="encoder")(tokens)
    x = layers.LSTM(H, return_sequences=True, name="rnn")(x)
    path = saved(keras.Model(tokens, layers.Dense(V, name="decoder")(x)), tmp_path / "lm.keras")
    tied = tmp_path / "tied.keras"
    operations.tie(path, [("encoder", "decoder")], method="keep-source", output=tied)

    outcome = operations.convert(tied, "torch", output=tmp_path / "lm_torch")

    assert outcome.proof.poke
    assert outcome.proof.step
    text = (tmp_path / "lm_torch" / "model.py").read_text()
    assert "self.decoder.weight = self.encoder.weight" in text


def test_values_that_differ_are_refused_with_the_measure_and_the_choices(tmp_path: Path) -> None:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, name="embedding")(tokens)
    path = saved(keras.Model(tokens, layers.Dense(V, name="dense")(x)), tmp_path / "m.keras")
    before = path.read_bytes()

    with pytest.raises(TieRefused, match=r"relative difference .*keep-source, keep-target or mean"):
        operations.tie(path, [("embedding", "dense")])

    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


@pytest.mark.parametrize("method", ["keep-source", "keep-target", "mean"])
def test_methods_choose_the_shared_matrix(tmp_path: Path, method: str) -> None:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, name="embedding")(tokens)
    model = keras.Model(tokens, layers.Dense(V, name="dense")(x))
    path = saved(model, tmp_path / "m.keras")
    table = np.asarray(model.get_layer("embedding").embeddings)
    kernel = np.asarray(model.get_layer("dense").kernel).T

    outcome = operations.tie(path, [("embedding", "dense")], method=method)

    assert outcome.output == tmp_path / "m.tied.keras"
    assert any(line.startswith("damage") for line in outcome.lines)
    expected = {"keep-source": table, "keep-target": kernel, "mean": (table + kernel) / 2}[method]
    shared = stock(outcome.output).get_layer("embedding").get_weights()[0]
    np.testing.assert_allclose(shared, expected, rtol=1e-6)


def test_json_names_what_was_tied(tmp_path: Path) -> None:
    path = saved(siamese(), tmp_path / "m.keras")
    from tiesurgeon import report

    document = json.loads(report.as_json(inspect(path)))
    assert document["schema"] == 1
    assert document["format"] == "keras-v3"
    assert document["ties"]
