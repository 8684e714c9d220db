"""Each form of a tie: written, judged by stock Keras, recognised again when read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tiesurgeon import edits, pairing
from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Graph
from tiesurgeon.names import resolve
from tiesurgeon.outcome import Result
from tiesurgeon.rooms.keras import surgery
from tiesurgeon.rooms.keras.read import read

pytestmark = pytest.mark.usefixtures("proof_here")

layers = keras.layers
V, H, T = 11, 3, 5  # distinct primes: a wrong transpose cannot fit


@dataclass(frozen=True)
class Tied:
    """A model, tied: the graph before and after, the file, and what the proof found."""

    before: Graph
    path: Path
    result: Result

    @property
    def again(self) -> Graph:
        return read(self.path).graph

    @property
    def model(self) -> Any:
        return keras.models.load_model(self.path, compile=False)


Tie = Callable[..., Tied]


@pytest.fixture
def tie(tmp_path: Path) -> Tie:
    """`tie(model, ("embedding", "dense"), ...)` ties with the first side's values."""

    def make(model: Any, *pairs: tuple[str, str], suffix: str = ".keras") -> Tied:
        source = tmp_path / f"model{suffix}"
        randomise(model)
        model.save(source)
        graph = before = read(source).graph
        for pair in pairs:
            found = pairing.pair(*(pairing.find_spots(graph, *pair)))
            one, other = found.views
            value = np.array(one.variable.storage.load())
            graph = edits.tie(graph, one.variable, other.variable, found.stored_perm, value)
        path = tmp_path / f"tied{suffix}"
        order = surgery.Order(before, graph, source, {}, values_changed=True)
        return Tied(before, path, surgery.produce(order, path, full=True))

    return make


def randomise(model: Any) -> None:
    """Distinct values everywhere, so that nothing is right by being zero."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.standard_normal(variable.shape) * 0.7)


def assert_proved(tied: Tied) -> None:
    proof = tied.result.proof
    assert proof.reread
    assert proof.max_abs_diff is not None
    assert proof.max_abs_diff <= 1e-5
    assert proof.poke
    assert proof.step


def lm(*, mask: bool = False, wrap: bool = False, steps: int | None = T, **dense: Any) -> Any:
    """Embedding, LSTM, Dense: the shape of most language models."""
    tokens = layers.Input((steps,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, mask_zero=mask, name="embedding")(tokens)
    x = layers.LSTM(H, return_sequences=True, name="lstm")(x)
    head = layers.Dense(V, name="inner" if wrap else "dense", **dense)
    if wrap:
        head = layers.TimeDistributed(head, name="dense")
    return keras.Model(tokens, head(x), name="lm")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "softmax"},
        {"activation": None},
        {"use_bias": False},
        {"use_bias": False, "activation": "tanh"},
        {"wrap": True, "activation": "softmax"},
        {"steps": None, "activation": "softmax"},
    ],
)
def test_a_projection_shares_its_embedding(tie: Tie, options: Any, suffix: str) -> None:
    tied = tie(lm(**options), ("embedding", "dense"), suffix=suffix)

    assert_proved(tied)
    assert [layer.name for layer in tied.model.layers][-1] == "dense"
    saved = V * H  # the numbers that are gone, and not one more
    assert tied.model.count_params() == lm(**options).count_params() - saved


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_tied_file_reads_like_the_model_it_came_from(tie: Tie, suffix: str) -> None:
    tied = tie(lm(activation="softmax"), ("embedding", "dense"), suffix=suffix)

    graph = tied.again
    assert [(lay.name, lay.op) for lay in graph.layers] == [
        ("tokens", "InputLayer"),
        ("embedding", "Embedding"),
        ("lstm", "LSTM"),
        ("dense", "Dense"),
    ]
    kernel, table = graph.layer("dense").views[0], graph.layer("embedding").views[0]
    assert kernel.variable is table.variable
    assert kernel.perm == (1, 0)
    assert graph.layer("dense").config["activation"] == "softmax"
    bias = graph.layer("dense").view("bias")
    assert bias is not None
    assert bias.shape == (V,)


def lstm(x: Any) -> Any:
    return layers.LSTM(H, return_sequences=True)(x)


def residual_attention(x: Any) -> Any:
    """MultiHeadAttention deletes the masks of its arguments, so the sum has none."""
    return layers.Add()([x, layers.MultiHeadAttention(1, H)(x, x)])


def attention(x: Any) -> Any:
    return layers.MultiHeadAttention(1, H)(x, x)


def masked(body: Any, *, wrap: bool) -> Any:
    tokens = layers.Input((None,), dtype="int32", name="tokens")
    x = body(layers.Embedding(V, H, mask_zero=True, name="embedding")(tokens))
    head = layers.Dense(V, activation="softmax", name="dense")
    return keras.Model(tokens, (layers.TimeDistributed(head, name="each") if wrap else head)(x))


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("body", [lstm, attention, residual_attention])
def test_the_mask_reaches_the_loss_as_before(tie: Tie, body: Any, wrap: bool) -> None:
    tied = tie(masked(body, wrap=wrap), ("embedding", "dense"))

    assert_proved(tied)
    twin = masked(body, wrap=wrap)
    randomise(twin)
    table = twin.get_layer("embedding").get_weights()[0]
    head = twin.get_layer("each" if wrap else "dense")
    head.set_weights([table.T, head.get_weights()[1]])
    x = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 0]])
    y = np.array([[2, 3, 4, 9, 9], [5, 6, 7, 8, 9]])
    losses = []
    for each in (twin, tied.model):
        each.compile("sgd", "sparse_categorical_crossentropy")
        losses.append(each.evaluate(x, y, verbose=0))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    unmasked = keras.losses.sparse_categorical_crossentropy(y, np.asarray(tied.model(x)))
    is_masked = abs(losses[0] - float(np.mean(unmasked))) > 1e-3
    # Built, the TimeDistributed was told the mask that the sum loses when it runs.
    assert is_masked is (wrap or body is not residual_attention)


# Keras warns that ReversibleEmbedding drops the mask; the next layer is given it by hand.
@pytest.mark.filterwarnings("ignore:Layer 'encoder_kernel'")
def test_a_mask_from_values_is_kept(tie: Tie) -> None:
    x = layers.Input((T, H), name="values")
    y = layers.Masking(name="masking")(x)
    y = layers.Dense(7, name="encoder")(y)
    y = layers.LSTM(7, return_sequences=True, name="lstm")(y)
    model = keras.Model(x, layers.Dense(H, activation="tanh", name="decoder")(y))

    tied = tie(model, ("encoder", "decoder"))

    assert_proved(tied)
    assert tied.again.layer("decoder").views[0].perm == (1, 0)


def seq2seq() -> Any:
    source = layers.Input((T,), dtype="int32", name="source")
    target = layers.Input((T + 2,), dtype="int32", name="target")
    x = layers.Embedding(V, H, name="encoder_embedding")(source)
    _, *state = layers.LSTM(H, return_state=True, name="encoder")(x)
    y = layers.Embedding(V, H, name="decoder_embedding")(target)
    y = layers.LSTM(H, return_sequences=True, name="decoder")(y, initial_state=state)
    return keras.Model([source, target], layers.Dense(V, "softmax", name="output")(y))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_three_uses_of_one_matrix(tie: Tie, suffix: str) -> None:
    tied = tie(
        seq2seq(),
        ("decoder_embedding", "output"),
        ("decoder_embedding", "encoder_embedding"),
        suffix=suffix,
    )

    assert_proved(tied)
    assert tied.model.count_params() == seq2seq().count_params() - 2 * V * H


def test_two_embeddings_become_one_layer(tie: Tie) -> None:
    tied = tie(seq2seq(), ("encoder_embedding", "decoder_embedding"))

    assert_proved(tied)
    assert len(tied.again.calls_of("encoder_embedding")) == 2


def autoencoder(**kernel: Any) -> Any:
    x = layers.Input((7,), name="x")
    h = layers.Dense(3, activation="relu", name="encoder", **kernel)(x)
    return keras.Model(x, layers.Dense(7, activation="sigmoid", name="decoder", **kernel)(h))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_autoencoder_shares_one_matrix_both_ways(tie: Tie, suffix: str) -> None:
    tied = tie(autoencoder(), ("encoder", "decoder"), suffix=suffix)

    assert_proved(tied)
    graph = tied.again
    assert [lay.name for lay in graph.layers] == ["x", "encoder", "decoder"]
    assert graph.layer("encoder").views[0].variable is graph.layer("decoder").views[0].variable
    assert tied.model.count_params() == autoencoder().count_params() - 21


def test_a_deep_autoencoder_is_tied_mirrorwise(tie: Tie) -> None:
    x = layers.Input((11,), name="x")
    h = layers.Dense(7, activation="relu", name="outer_encoder")(x)
    h = layers.Dense(3, name="inner_encoder")(h)
    h = layers.Dense(7, activation="relu", name="inner_decoder")(h)
    model = keras.Model(x, layers.Dense(11, name="outer_decoder")(h))

    tied = tie(model, ("outer_encoder", "outer_decoder"), ("inner_encoder", "inner_decoder"))

    assert_proved(tied)


def test_dense_layers_of_one_orientation_share_a_kernel(tie: Tie) -> None:
    a, b = layers.Input((7,), name="a"), layers.Input((7,), name="b")
    ya = layers.Dense(3, activation="relu", name="left")(a)
    yb = layers.Dense(3, name="right")(b)
    tied = tie(keras.Model([a, b], [ya, yb]), ("left", "right"))

    assert_proved(tied)
    assert [y.split("/")[0] for y in tied.model.output_names] == ["left", "right"]


def test_a_tie_across_a_nested_model(tie: Tie) -> None:
    inner_in = layers.Input((T,), dtype="int32", name="ids")
    inner = keras.Model(inner_in, layers.Embedding(V, H, name="table")(inner_in), name="body")
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.GRU(H, return_sequences=True, name="gru")(inner(tokens))
    tied = tie(keras.Model(tokens, layers.Dense(V, name="head")(x)), ("table", "head"))

    assert_proved(tied)


def test_a_tie_within_a_nested_model_leaves_it_nested(tie: Tie) -> None:
    tokens = layers.Input((T,), dtype="int32", name="outer_tokens")
    tied = tie(keras.Model(tokens, lm()(tokens)), ("lm/embedding", "lm/dense"))

    assert_proved(tied)
    assert tied.model.get_layer("lm").count_params() == lm().count_params() - V * H


def test_a_nested_model_called_twice(tie: Tie) -> None:
    a = layers.Input((T,), dtype="int32", name="a")
    b = layers.Input((T,), dtype="int32", name="b")
    ids = layers.Input((T,), dtype="int32", name="ids")
    shared = keras.Model(ids, layers.Embedding(V, H, name="table")(ids), name="shared")
    x = layers.Add()([shared(a), shared(b)])
    tied = tie(keras.Model([a, b], layers.Dense(V, name="head")(x)), ("table", "head"))

    assert_proved(tied)
    assert len(tied.again.calls_of("table")) == 2


def test_a_head_called_twice_keeps_one_bias(tie: Tie) -> None:
    a = layers.Input((T,), dtype="int32", name="a")
    b = layers.Input((T,), dtype="int32", name="b")
    table = layers.Embedding(V, H, name="table")
    head = layers.Dense(V, activation="softmax", name="head")
    model = keras.Model([a, b], [head(table(a)), head(table(b))])

    tied = tie(model, ("table", "head"))

    assert_proved(tied)
    assert tied.model.count_params() == V * H + V


def test_a_sequential_model(tie: Tie) -> None:
    model = keras.Sequential(
        [
            layers.Input((T,), dtype="int32", name="tokens"),
            layers.Embedding(V, H, name="embedding"),
            layers.Dropout(0.2, name="dropout"),
            layers.Bidirectional(layers.GRU(H, return_sequences=True), "sum", name="gru"),
            layers.TimeDistributed(layers.Dense(V, activation="softmax"), name="dense"),
        ]
    )
    assert_proved(tie(model, ("embedding", "dense")))


def test_a_square_matrix(tie: Tie) -> None:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.Embedding(7, 7, name="embedding")(tokens)
    tied = tie(keras.Model(tokens, layers.Dense(7, name="dense")(x)), ("embedding", "dense"))

    assert_proved(tied)
    assert tied.again.layer("dense").views[0].perm == (1, 0)


def test_frozen_on_both_sides_stays_frozen(tie: Tie) -> None:
    model = lm(activation="softmax", trainable=False)
    model.get_layer("embedding").trainable = False
    tied = tie(model, ("embedding", "dense"))

    assert tied.result.proof.poke
    assert tied.model.trainable_variables
    assert all("lstm" in v.path for v in tied.model.trainable_variables)


def test_penalties_of_both_sides_are_added(tie: Tie) -> None:
    tokens = layers.Input((T,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, embeddings_regularizer=keras.regularizers.L2(0.1), name="e")(tokens)
    head = layers.Dense(V, kernel_regularizer="l1", bias_regularizer="l2", name="d")
    tied = tie(keras.Model(tokens, head(x)), ("e", "d"))

    table = tied.model.get_layer("e").get_weights()[0]
    bias = tied.model.get_layer("d_bias").get_weights()[0]
    expected = 0.1 * np.sum(table**2) + 0.01 * np.sum(np.abs(table)) + 0.01 * np.sum(bias**2)
    assert float(sum(tied.model.losses)) == pytest.approx(float(expected), rel=1e-5)


class TestRefusals:
    """What cannot be one variable without changing the model is said, not done."""

    def test_one_side_frozen(self, tie: Tie) -> None:
        model = lm()
        model.get_layer("embedding").trainable = False
        with pytest.raises(TieRefused, match=r"'embedding/embeddings' is frozen"):
            tie(model, ("embedding", "dense"))

    def test_different_dtypes(self, tie: Tie) -> None:
        model = lm(dtype="float16")
        with pytest.raises(TieRefused, match=r"float32 and .* is float16"):
            tie(model, ("embedding", "dense"))

    def test_a_constraint_that_sees_columns(self, tie: Tie) -> None:
        with pytest.raises(TieRefused, match=r"kernel_constraint MaxNorm"):
            tie(lm(kernel_constraint="max_norm"), ("embedding", "dense"))

    def test_embeddings_of_which_one_masks(self, tie: Tie) -> None:
        a = layers.Input((T,), dtype="int32", name="a")
        x = layers.Embedding(V, H, mask_zero=True, name="one")(a)
        y = layers.Embedding(V, H, name="two")(a)
        with pytest.raises(TieRefused, match=r"mask_zero is True in one and False in the other"):
            tie(keras.Model(a, layers.Concatenate()([x, y])), ("one", "two"))

    def test_convolution_and_its_transpose(self, tie: Tie) -> None:
        x = layers.Input((5, 5, 2), name="x")
        y = layers.Conv2D(3, 3, name="down")(x)
        model = keras.Model(x, layers.Conv2DTranspose(2, 3, name="up")(y))
        with pytest.raises(TieRefused, match=r"no built-in Keras layer"):
            tie(model, ("down", "up"))

    def test_what_is_one_already(self, tie: Tie, tmp_path: Path) -> None:
        tied = tie(lm(), ("embedding", "dense"))
        graph = tied.again
        with pytest.raises(TieRefused, match="one variable already"):
            pairing.pair(resolve(graph, "embedding"), resolve(graph, "dense"))
