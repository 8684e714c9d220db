"""Models of Keras 2 and Keras 3, small, with sizes that are distinct primes."""

from collections.abc import Callable
from typing import Any

import keras

KERAS_2: dict[str, Callable[[], Any]] = {}
KERAS_3: dict[str, Callable[[], Any]] = {}
NOT_IN_H5 = ("subclassed", "same_names")


def keras_2(build: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    def built() -> Any:
        import tf_keras

        return build(tf_keras, tf_keras.layers)

    KERAS_2[build.__name__] = built
    return built


def keras_3(build: Callable[[], Any]) -> Callable[[], Any]:
    KERAS_3[build.__name__] = build
    return build


@keras_2
def lm(old: Any, layers: Any) -> Any:
    ids = old.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(11, 3, mask_zero=True, name="embedding")(ids)
    x = layers.Dense(3, name="dense")(layers.BatchNormalization(name="norm")(x))
    model = old.Model(ids, layers.TimeDistributed(layers.Dense(11), name="out")(x), name="lm")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


@keras_2
def siamese(old: Any, layers: Any) -> Any:
    encoder = old.Sequential([layers.Dense(7, input_shape=(3,)), layers.Dense(5)], name="encoder")
    inputs = [old.Input((3,), name=name) for name in ("one", "two")]
    return old.Model(inputs, layers.Concatenate()([encoder(x) for x in inputs]))


@keras_2
def two_models_share_a_layer(old: Any, layers: Any) -> Any:
    shared, x = layers.Dense(3, name="shared"), old.Input((3,), name="x")
    first = old.Sequential([old.Input((3,)), shared], name="first")
    second = old.Sequential([old.Input((3,)), shared, layers.Dense(2)], name="second")
    return old.Model(x, [first(x), second(x)])


@keras_2
def frozen(old: Any, layers: Any) -> Any:
    inner = old.Sequential(
        [layers.Dense(3, input_shape=(3,)), layers.BatchNormalization(), layers.Dense(3)]
    )
    inner.layers[0].trainable = False
    x = old.Input((3,), name="x")
    still = layers.Dense(2, name="still", trainable=False)
    return old.Model(x, still(inner(x)))


@keras_2
def same_names(old: Any, layers: Any) -> Any:
    """Layers of one name and shape, the first one frozen: only the order tells them apart."""
    halves = [
        old.Sequential([layers.Dense(3, input_shape=(3,), name="dense")], name=name)
        for name in ("first", "second")
    ]
    halves[0].trainable = False
    x = old.Input((3,), name="x")
    return old.Model(x, old.Sequential([old.Input((3,)), *halves], name="both")(x))


@keras_2
def attention(old: Any, layers: Any) -> Any:
    x = old.Input((5, 3), name="x")
    return old.Model(x, layers.MultiHeadAttention(2, 7)(layers.Normalization()(x), x))


@keras_2
def bidirectional(old: Any, layers: Any) -> Any:
    return old.Sequential(
        [layers.Embedding(11, 3, input_length=5), layers.Bidirectional(layers.SimpleRNN(2))]
    )


@keras_2
def subclassed(old: Any, layers: Any) -> Any:
    class Tagger(old.Model):
        def __init__(self) -> None:
            super().__init__()
            self.table = layers.Embedding(11, 3, name="table")
            self.head = layers.Dense(11, name="head")

        def call(self, ids: Any) -> Any:
            return self.head(self.table(ids))

    model = Tagger()
    model(old.backend.constant([[1, 2]], dtype="int32"))
    return model


@keras_3
def tied() -> Any:
    ids = keras.Input((None,), dtype="int32", name="ids")
    embedding = keras.layers.ReversibleEmbedding(11, 3, name="embedding")
    x = keras.layers.GRU(3, return_sequences=True, name="gru")(embedding(ids))
    return keras.Model(ids, embedding(x, reverse=True), name="lm")


@keras_3
def steps() -> Any:
    """TimeDistributed over steps whose number is not known."""
    x = keras.Input((None, 3), name="x")
    y = keras.layers.TimeDistributed(keras.layers.Dense(7))(x)
    return keras.Model(x, keras.layers.TimeDistributed(keras.layers.LayerNormalization())(y))


@keras_3
def dictionaries() -> Any:
    inputs = {name: keras.Input((size,), name=name) for name, size in (("b", 3), ("a", 5))}
    outputs = {"z": keras.layers.Dense(2)(inputs["b"]), "y": keras.layers.Dense(7)(inputs["a"])}
    return keras.Model(inputs, outputs)


@keras_3
def nested() -> Any:
    encoder = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3), keras.layers.Dense(3)], name="encoder"
    )
    inputs = [keras.Input((3,), name=name) for name in ("y", "x")]
    return keras.Model(inputs, [encoder(x) for x in inputs])


@keras_3
def sequential() -> Any:
    frozen = keras.layers.Dense(5, trainable=False, name="frozen")
    layers = [frozen, keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    return keras.Sequential([keras.Input((3,), name="x"), *layers, keras.layers.Dense(2)])


@keras_3
def looked_up() -> Any:
    numbers = keras.Input((5,), dtype="int64", name="numbers")
    ids = keras.layers.IntegerLookup(vocabulary=[1, 4, 6])(numbers)
    return keras.Model(numbers, keras.layers.Embedding(5, 3)(ids))
