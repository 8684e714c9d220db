"""Whole Keras models, built as people build them, converted and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops

from tests.mapping.comparing import (
    assert_formatted,
    converted,
    difference,
    graph_of,
    imported,
    with_random_weights,
)
from tiesurgeon.graph import Array, Layer
from tiesurgeon.mapping.to_torch import to_torch
from tiesurgeon.rooms.pytorch.code.write import write

V, H = 11, 3
Built = tuple[keras.Model, list[Array]]


def _ids(*shape: int, seed: int = 0, low: int = 0, high: int = V) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape).astype("int32")


def _floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape).astype("float32")


def language_model() -> Built:
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(V, H, name="embedding")(ids)
    x = layers.LSTM(H, return_sequences=True, name="lstm")(x)
    x = layers.Dense(V, activation="softmax", name="dense")(x)
    return keras.Model(ids, x, name="lm"), [_ids(2, 7)]


def sequential_with_float_ids() -> Built:
    model = keras.Sequential(
        [keras.Input((7,)), layers.Embedding(V, H), layers.Flatten(), layers.Dense(5)], name="lm"
    )
    return model, [_ids(2, 7).astype("float32")]


def masked_gru_language_model() -> Built:
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(V, H, mask_zero=True)(ids)
    x = layers.GRU(H, return_sequences=True)(x)
    x = layers.Dropout(0.2)(x)
    x = layers.GRU(H, return_sequences=True, reset_after=False)(x)
    x = layers.TimeDistributed(layers.Dense(V, activation="softmax"), name="output")(x)
    return keras.Model(ids, x, name="gru_lm"), [_ids(4, 7, high=3)]


def seq2seq_with_states() -> Built:
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    x = layers.Embedding(V, H, mask_zero=True)(source)
    x, *state = layers.LSTM(H, return_state=True)(x)
    y = layers.Embedding(V, H, mask_zero=True)(target)
    y = layers.LSTM(H, return_sequences=True)(y, initial_state=state)
    y = layers.Dense(V)(y)
    return keras.Model([source, target], y, name="seq2seq"), [_ids(2, 7), _ids(2, 5, seed=1)]


def states_reused_and_returned() -> Built:
    ids = keras.Input((5,), dtype="int32")
    h = keras.Input((H,))
    x = layers.Embedding(V, H)(ids)
    x, new = layers.GRU(H, return_sequences=True, return_state=True)(x, initial_state=h)
    model = keras.Model([ids, h], {"logits": layers.Dense(V)(x), "state": layers.Add()([new, h])})
    return model, [_ids(2, 5), _floats(2, H)]


def siamese() -> Built:
    left = keras.Input((7,), dtype="int32", name="left")
    right = keras.Input((7,), dtype="int32", name="right")
    embedding, lstm = layers.Embedding(V, H, mask_zero=True), layers.LSTM(H)
    a, b = lstm(embedding(left)), lstm(embedding(right))
    distance = layers.Dot(axes=1, normalize=True)([a, b])
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(distance))
    return model, [_ids(4, 7, high=3), _ids(4, 7, seed=1)]


def convolutional() -> Built:
    image = keras.Input((12, 10, 3), name="image")
    x = layers.Conv2D(5, 3, activation="relu", padding="same")(image)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(7, 3, strides=2, padding="same")(x)
    x = layers.LeakyReLU()(x)
    x = layers.SpatialDropout2D(0.3)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(2, activation="softmax")(x)
    return keras.Model(image, x, name="cnn"), [_floats(2, 12, 10, 3)]


def residual() -> Built:
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, padding="same")(image)
    y = layers.Conv2D(5, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, y])
    x = layers.Concatenate()([x, layers.UpSampling2D()(layers.MaxPooling2D()(x))])
    weights = layers.Dense(10, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 10))(weights)])
    return keras.Model(image, x, name="residual"), [_floats(2, 8, 8, 3)]


def channels_of_different_layouts() -> Built:
    image = keras.Input((6, 8, 3))
    x = layers.Conv2D(5, 3)(image)
    y = layers.Dense(5)(layers.Cropping2D(1)(image))
    x = layers.Softmax(axis=-1)(layers.Activation("softmax")(layers.Add()([x, y])))
    return keras.Model(image, layers.ZeroPadding2D(1)(x)), [_floats(2, 6, 8, 3)]


def nested() -> Built:
    inner_in = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(V, H, mask_zero=True, name="table")(inner_in)
    x = layers.Bidirectional(layers.LSTM(H, return_sequences=True))(x)
    encoder = keras.Model(inner_in, x, name="encoder")
    head = keras.Sequential([keras.Input((7, 2 * H)), layers.GRU(5), layers.Dense(2)], name="head")
    a, b = keras.Input((7,), dtype="int32", name="a"), keras.Input((7,), dtype="int32", name="b")
    x = layers.Average()([head(encoder(a)), head(encoder(b))])
    return keras.Model([a, b], x, name="nested"), [_ids(3, 7, high=2), _ids(3, 7, high=2, seed=1)]


def nested_that_takes_a_mask() -> Built:
    inner_in = keras.Input((7, H), name="steps")
    x = layers.Dense(H)(inner_in)
    inner = keras.Model(inner_in, [layers.LSTM(H)(x), layers.ReLU()(x)], name="inner")
    ids = keras.Input((7,), dtype="int32", name="ids")
    last, steps = inner(layers.Embedding(V, H, mask_zero=True)(ids))
    plain, _ = inner(layers.Embedding(V, H)(ids))
    x = layers.Concatenate()([last, plain, layers.GRU(2)(steps)])
    return keras.Model(ids, x, name="masked_inside"), [_ids(4, 7, high=2)]


def sentences_of_words() -> Built:
    words = keras.Input((5,), dtype="int32")
    x = layers.GRU(H)(layers.Embedding(V, H, mask_zero=True)(words))
    sentence = keras.Model(words, x, name="sentence")
    document = keras.Input((3, 5), dtype="int32", name="document")
    x = layers.LSTM(2)(layers.TimeDistributed(sentence)(document))
    return keras.Model(document, x, name="hierarchical"), [_ids(2, 3, 5, high=2)]


def masks_merged() -> Built:
    a, b = keras.Input((7,), dtype="int32", name="a"), keras.Input((7,), dtype="int32", name="b")
    x, y = (layers.Embedding(V, H, mask_zero=True)(ids) for ids in (a, b))
    z = layers.Embedding(V, H)(b)
    features = layers.GRU(H, return_sequences=True)(layers.Concatenate()([x, y]))
    added = layers.LSTM(2)(layers.Add()([x, y, features]))
    joined = layers.LSTM(2)(layers.Concatenate(axis=1)([x, z]))
    lost = layers.LSTM(2)(layers.Multiply()([x, z]))
    pooled = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    largest = layers.LSTM(2)(layers.Maximum()([features, x, y]))
    model = keras.Model([a, b], [added, joined, lost, pooled, largest], name="masks")
    return model, [_ids(4, 7, low=0, high=2) | 1 * (np.arange(7) == 3), _ids(4, 7, seed=1, high=2)]


def operators() -> Built:
    a, b = keras.Input((7, 6), name="a"), keras.Input((7, 6), name="b")
    x = a + b * 2.0 - ops.transpose(ops.transpose(b, (0, 2, 1)), (0, 2, 1)) / 3.0
    x = 1.0 - (x - (a - b))
    x = ops.reshape(x[:, 1:, ...], (-1, 36))
    mean = ops.mean(x, axis=-1, keepdims=True)
    x = ops.where(x > mean, x, 0.0)
    x = ops.softmax(ops.concatenate([x, ops.expand_dims(ops.max(x, axis=1), -1)], axis=-1))
    y = ops.matmul(ops.relu(a), ops.transpose(b, (0, 2, 1)))[:, -1]
    first, second = ops.split(a, 2, axis=-1)
    z = ops.einsum("bij,bkj->bik", first, second) + ops.ones((1, 7, 7))
    flags = ops.cast(ops.not_equal(ops.cast(a, "int32"), 0), "float32")
    return keras.Model([a, b], [x, y, z, -flags, ops.sum(a)]), [_floats(2, 7, 6), _floats(2, 7, 6)]


def bidirectional_states() -> Built:
    steps = keras.Input((7, 5), name="steps")
    states = [keras.Input((H,), name=f"state_{n}") for n in range(4)]
    encoder = layers.Bidirectional(layers.LSTM(H, return_state=True), name="encoder")
    x = encoder(steps, initial_state=states)
    again = layers.Bidirectional(layers.LSTM(H, return_sequences=True))
    y = again(steps, initial_state=list(x[1:]))
    inputs = [_floats(2, 7, 5), *(_floats(2, H, seed=n) for n in range(4))]
    return keras.Model([steps, *states], [*x, y], name="states"), inputs


def whole_numbers_into_weights() -> Built:
    numbers = keras.Input((7, H), dtype="int32", name="numbers")
    x = layers.LSTM(5)(layers.Dense(H)(numbers))
    return keras.Model(numbers, [x, layers.Rescaling(0.5)(numbers)]), [_ids(2, 7, H)]


def names_that_are_no_names() -> Built:
    x = keras.Input((5,), name="class")
    y = layers.Dense(H, name="dense-1")(x)
    y = layers.Dense(H, name="forward")(y)
    y = layers.Dense(H, name="1x")(y)
    y = layers.Dense(H, name="x")(layers.Concatenate(name="dense_1")([y, x]))
    return keras.Model(x, layers.Add(name="self")([y, y]), name="my-model.v2"), [_floats(2, 5)]


MODELS: list[Callable[[], Built]] = [
    language_model,
    sequential_with_float_ids,
    masked_gru_language_model,
    seq2seq_with_states,
    states_reused_and_returned,
    siamese,
    convolutional,
    residual,
    channels_of_different_layouts,
    nested,
    nested_that_takes_a_mask,
    sentences_of_words,
    masks_merged,
    operators,
    bidirectional_states,
    whole_numbers_into_weights,
    names_that_are_no_names,
]


def test_channels_first_convolutions(tmp_path: Path) -> None:
    """Keras on TensorFlow has none on a CPU: the same weights with channels last must agree."""
    image = keras.Input((6, 8, 3), name="image")
    x = layers.Conv2D(5, 3, padding="same", strides=2, activation="relu", name="conv")(image)
    x = layers.Conv2DTranspose(2, 3, name="back")(layers.BatchNormalization(name="bn")(x))
    model = with_random_weights(keras.Model(image, x, name="cnn"))
    graph = graph_of(model, tmp_path)
    changed = {
        layer.name: replace(layer, config={**layer.config, **_channels_first(layer)})
        for layer in graph.layers
    }
    write(to_torch(graph.with_layers(changed)), tmp_path, source="cnn.keras", version="0")
    array = _floats(2, 6, 8, 3)
    expected = np.asarray(model(array)).transpose(0, 3, 1, 2)
    found = imported(tmp_path).load()(torch.from_numpy(array.transpose(0, 3, 1, 2).copy()))
    assert found.shape == expected.shape
    assert np.abs(found.detach().numpy() - expected).max() < 1e-5


def _channels_first(layer: Layer) -> dict[str, object]:
    if layer.op == "InputLayer":
        return {"batch_shape": (None, 3, 6, 8)}
    return {"axis": 1} if layer.op == "BatchNormalization" else {"data_format": "channels_first"}


def test_mixed_precision_becomes_single_and_says_so(tmp_path: Path) -> None:
    numbers = keras.Input((5,), name="numbers")
    x = layers.Dense(3, dtype="mixed_bfloat16")(numbers)
    folder = converted(keras.Model(numbers, x, name="mixed"), tmp_path)
    assert "where the Keras model used mixed_bfloat16." in (folder / "model.py").read_text()
    assert imported(folder).load()(torch.ones(2, 5)).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning")  # nested models
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_whole_model(build: Callable[[], Built], tmp_path: Path) -> None:
    keras.utils.clear_session(free_memory=False)
    model, inputs = build()
    assert difference(with_random_weights(model), inputs, tmp_path) < 1e-5
    assert_formatted(next(tmp_path.glob("*_torch/model.py")))
