"""A converted model trains as the Keras model does: one step, and both still agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers

from tests.mapping.comparing import converted, imported, with_random_weights
from tiesurgeon.graph import Array

V, H = 11, 3
RATE = 0.01


def recurrent() -> tuple[keras.Model, Array]:
    ids = keras.Input((7,), dtype="int32")
    x = layers.Embedding(V, H, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(H, return_sequences=True))(x)
    x = layers.GRU(H, return_sequences=True)(x)
    x = layers.SimpleRNN(H, activation="sigmoid", return_sequences=True)(x)
    x = layers.Dense(V, activation="softmax")(x)
    random = np.random.default_rng(0)
    return keras.Model(ids, x, name="rnn"), random.integers(0, 3, (4, 7)).astype("int32")


def tied() -> tuple[keras.Model, Array]:
    ids = keras.Input((7,), dtype="int32")
    table = layers.ReversibleEmbedding(V, H)
    x = layers.LSTM(H, return_sequences=True)(table(ids))
    x = layers.Activation("tanh")(table(x, reverse=True))
    random = np.random.default_rng(0)
    return keras.Model(ids, x, name="tied"), random.integers(0, V, (4, 7)).astype("int32")


def convolutional() -> tuple[keras.Model, Array]:
    image = keras.Input((6, 7, 3))
    x = layers.Conv2D(5, 3, padding="same", strides=2)(image)
    x = layers.BatchNormalization()(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    frozen = layers.BatchNormalization(trainable=False)
    x = layers.LayerNormalization()(frozen(x))
    x = layers.Dense(2)(layers.Flatten()(x))
    random = np.random.default_rng(0)
    return keras.Model(image, x, name="cnn"), random.normal(0, 1, (4, 6, 7, 3)).astype("float32")


@pytest.mark.parametrize("build", [recurrent, tied, convolutional])
def test_one_step_of_both(build: Callable[[], tuple[keras.Model, Array]], tmp_path: Path) -> None:
    model, x = build()
    with_random_weights(model)
    module = imported(converted(model, tmp_path)).load().train()

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(RATE * tf.convert_to_tensor(gradient))

    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    before = module(torch.from_numpy(x))
    before.square().sum().backward()
    optimizer.step()

    expected = np.asarray(model(x, training=True))
    with torch.no_grad():
        after = module(torch.from_numpy(x))
    assert np.abs(after.numpy() - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())
    assert (after - before).abs().max() > 1e-3
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert trainable == sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_batch_normalization_moves_its_statistics_as_keras_does(tmp_path: Path) -> None:
    steps = keras.Input((5,))
    model = keras.Model(steps, layers.BatchNormalization(momentum=0.9, name="bn")(steps), name="bn")
    module = imported(converted(with_random_weights(model), tmp_path)).load().train()
    x = np.random.default_rng(0).normal(0, 1, (1000, 5)).astype("float32")
    model(x, training=True)
    module(torch.from_numpy(x))
    mean = np.asarray(model.layers[-1].moving_mean)
    variance = np.asarray(model.layers[-1].moving_variance)
    assert np.abs(module.bn.running_mean.numpy() - mean).max() < 1e-5
    # PyTorch's running variance is the unbiased one: n / (n - 1) of the batch's.
    assert np.abs(module.bn.running_var.numpy() - variance).max() < 3e-4
