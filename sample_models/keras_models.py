"""The sample models in Keras 3: how each is built and trained, and how to use a saved one."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tasks import (
    KINDS,
    LETTERS,
    TRIGRAMS,
    WORDS,
    Array,
    Examples,
)
from text import CHARACTERS, SEED

Model = Any  # Keras carries no type annotations


def start() -> None:
    """Fix everything that could make two runs differ."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.clear_session()
    keras.utils.set_random_seed(SEED)


def save(model: Model, path: Path) -> None:
    """Write the model as .keras or .h5, whichever the path says."""
    if path.suffix == ".h5":
        model.save(path, include_optimizer=False)
    else:
        model.save(path)


def load(path: Path) -> Model:
    """Read what `save` wrote."""
    return keras.models.load_model(path, compile=False)


def predict(model: Model, inputs: dict[str, Array]) -> Array:
    """Return the outputs as a numpy array."""
    return np.asarray(model(_arrays(model, inputs)))


def parameters(model: Model) -> int:
    """Return the number of weights, without the optimizer's."""
    return int(model.count_params())


def _arrays(model: Model, inputs: dict[str, Array]) -> Any:
    arrays = [inputs[tensor.name] for tensor in model.inputs]
    return arrays if len(arrays) > 1 else arrays[0]


def _fit(model: Model, train: Examples, loss: str, epochs: int) -> Model:
    # No XLA: compiling the recurrent loop takes longer than it saves.
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    rows = {"sample_weight": train.weights, "batch_size": 64, "epochs": epochs}
    model.fit(_arrays(model, train.inputs), train.targets, verbose=0, **rows)
    return model


def _without_optimizer(model: Model) -> Model:
    return keras.Model(model.input, model.output, name=model.name)


def _tokens(name: str, length: int | None = None) -> Any:
    return keras.Input((length,), dtype="int32", name=name)


# --- language models --------------------------------------------------------------------------

WIDTH = 64


def _char_lm() -> Model:
    tokens = _tokens("tokens")
    x = layers.Embedding(len(CHARACTERS), WIDTH, name="embedding")(tokens)
    x = layers.LSTM(WIDTH, return_sequences=True, name="lstm")(x)
    probabilities = layers.Dense(len(CHARACTERS), activation="softmax", name="dense")(x)
    return keras.Model(tokens, probabilities, name="char_lm")


def char_lm(train: Examples) -> Model:
    """The plain case: an embedding and an output matrix that know nothing of each other."""
    model = _fit(_char_lm(), train, "sparse_categorical_crossentropy", epochs=10)
    return _without_optimizer(model)


def char_lm_equal(train: Examples) -> Model:
    """The same layers with `dense.kernel == embedding.T` bit by bit, stored twice.

    So looks a model that was trained tied, and then lost its tie on the way through a file.
    """
    tokens = _tokens("tokens")
    embedding = layers.ReversibleEmbedding(len(CHARACTERS), WIDTH)
    lstm = layers.LSTM(WIDTH, return_sequences=True)
    bias = layers.Embedding(1, len(CHARACTERS), embeddings_initializer="zeros")
    logits = embedding(lstm(embedding(tokens)), reverse=True)
    logits = layers.Add()([logits, bias(layers.Rescaling(0.0, dtype="int32")(tokens))])
    tied = keras.Model(tokens, layers.Softmax()(logits))
    _fit(tied, train, "sparse_categorical_crossentropy", epochs=10)

    model = _char_lm()
    (matrix,) = embedding.get_weights()
    model.get_layer("embedding").set_weights([matrix])
    model.get_layer("lstm").set_weights(lstm.get_weights())
    model.get_layer("dense").set_weights([matrix.T, bias.get_weights()[0][0]])
    return model


def gru_lm(train: Examples) -> Model:
    """A mask through a GRU, and the output matrix inside a TimeDistributed."""
    width = 32
    words = _tokens("words")
    x = layers.Embedding(WORDS, width, mask_zero=True, name="embedding")(words)
    x = layers.GRU(width, return_sequences=True, name="gru")(x)
    dense = layers.Dense(WORDS, activation="softmax", name="dense")
    model = keras.Model(words, layers.TimeDistributed(dense, name="output")(x), name="gru_lm")
    return _without_optimizer(_fit(model, train, "sparse_categorical_crossentropy", epochs=10))


# --- other shapes of model --------------------------------------------------------------------


def seq2seq(train: Examples) -> Model:
    """Three matrices of one vocabulary: the encoder's, the decoder's and the output's.

    Saved with its optimizer, whose moments have the same shapes as the matrices.
    """
    width = 40
    word, so_far = _tokens("word"), _tokens("so_far")
    x = layers.Embedding(len(LETTERS), width, name="encoder_embedding")(word)
    _, *states = layers.LSTM(width, return_state=True, name="encoder")(x)
    x = layers.Embedding(len(LETTERS), width, name="decoder_embedding")(so_far)
    decoder = layers.LSTM(width, return_sequences=True, name="decoder")
    x = decoder(x, initial_state=states)
    letters = layers.Dense(len(LETTERS), activation="softmax", name="output")(x)
    model = keras.Model([word, so_far], letters, name="seq2seq")
    return _fit(model, train, "sparse_categorical_crossentropy", epochs=40)


def autoencoder(train: Examples) -> Model:
    """Two Dense layers, each the other's transpose in shape; saved with its optimizer."""
    vector = keras.Input((TRIGRAMS,), name="trigrams")
    code = layers.Dense(48, activation="relu", name="encoder")(vector)
    model = keras.Model(vector, layers.Dense(TRIGRAMS, name="decoder")(code), name="autoencoder")
    return _fit(model, train, "mse", epochs=10)


def siamese(train: Examples) -> Model:
    """An embedding and an LSTM that are each called twice: ties that are there already."""
    width = 48
    left, right = _tokens("left"), _tokens("right")
    embedding = layers.Embedding(len(LETTERS), width, name="embedding")
    lstm = layers.LSTM(width, name="lstm")
    sides = [lstm(embedding(side)) for side in (left, right)]
    difference = layers.Subtract(name="difference")(sides)
    distances = layers.Multiply(name="squared")([difference, difference])
    same = layers.Dense(1, activation="sigmoid", name="same")(distances)
    model = keras.Model([left, right], same, name="siamese")
    return _without_optimizer(_fit(model, train, "binary_crossentropy", epochs=6))


def multi_input(train: Examples) -> Model:
    """One embedding for two inputs, pooled and joined."""
    name, summary = _tokens("name"), _tokens("summary")
    embedding = layers.Embedding(WORDS, 24, name="embedding")
    pooled = [
        layers.GlobalAveragePooling1D(name="pool_name")(embedding(name)),
        layers.GlobalAveragePooling1D(name="pool_summary")(embedding(summary)),
    ]
    x = layers.Concatenate(name="both")(pooled)
    kind = layers.Dense(len(KINDS), activation="softmax", name="kind")(x)
    model = keras.Model([name, summary], kind, name="multi_input")
    return _without_optimizer(_fit(model, train, "sparse_categorical_crossentropy", epochs=10))
