"""Models of many kinds, small, with sizes that are distinct primes."""

from collections.abc import Callable
from typing import Any

import keras

L = keras.layers
MODELS: dict[str, Callable[[], Any]] = {}


def model(build: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[build.__name__] = build
    return build


def vectors(*shape: int, name: str | None = None) -> Any:
    return keras.Input(shape or (5, 3), name=name)


def ids(name: str | None = None) -> Any:
    return keras.Input((5,), dtype="int32", name=name)


@model
def functional() -> Any:
    x = vectors()
    y = L.LayerNormalization()(L.Dense(7, activation="relu")(x))
    return keras.Model(x, L.Add()([L.Dense(3)(y), x]))


@model
def sequential() -> Any:
    return keras.Sequential([ids(), L.Embedding(11, 3), L.GRU(7), L.Dropout(0.5), L.Dense(2)])


@model
def sequential_built_later() -> Any:
    made = keras.Sequential([L.Dense(7), L.BatchNormalization(), L.Dense(2)])
    made.build((None, 5, 3))
    return made


def inner_model(name: str, width: int = 3) -> Any:
    x = vectors(5, width)
    y = L.BatchNormalization(name="norm")(L.Dense(7, name="first")(x))
    return keras.Model(x, L.Dense(width, name="second")(y), name=name)


@model
def nested_twice_deep() -> Any:
    x = vectors()
    core = inner_model("core")
    y = vectors()
    middle = keras.Model(y, L.Dense(3, name="after")(core(y)), name="middle")
    return keras.Model(x, L.Dense(2, name="last")(middle(x)))


@model
def nested_called_twice() -> Any:
    one, two = vectors(name="one"), vectors(name="two")
    core = inner_model("core")
    return keras.Model([one, two], L.Subtract()([core(core(one)), core(two)]))


@model
def nested_in_steps() -> Any:
    x = keras.Input((2, 5, 3))
    return keras.Model(x, L.TimeDistributed(inner_model("core"))(x))


@model
def sequential_in_sequential() -> Any:
    core = keras.Sequential([L.Dense(7), L.BatchNormalization(), L.Dense(3)], name="core")
    return keras.Sequential([vectors(), L.Dense(3), core, L.Dense(2)])


@model
def shared_layers() -> Any:
    one, two = ids("one"), ids("two")
    table, encoder = L.Embedding(11, 3), L.LSTM(7)
    left, right = encoder(table(one)), encoder(table(two))
    return keras.Model([one, two], L.Dense(2)(L.Concatenate()([left, right])))


@model
def several_outputs() -> Any:
    one, two = vectors(name="one"), vectors(5, 2, name="two")
    first = L.Dense(3, name="first")(one)
    return keras.Model([one, two], [L.Concatenate(name="second")([first, two]), first, two])


@model
def dicts() -> Any:
    given = {"one": vectors(name="one"), "two": vectors(5, 2, name="two")}
    y = L.Concatenate()([given["one"], given["two"]])
    return keras.Model(given, {"wide": L.Dense(7)(y), "narrow": L.Dense(2)(y)})


@model
def nested_with_several_ends() -> Any:
    a, b = vectors(name="a"), vectors(name="b")
    core = keras.Model([a, b], [L.Dense(3, name="x")(a), L.Dense(2, name="y")(b)], name="core")
    one, two = vectors(name="one"), vectors(name="two")
    first, second = core([one, two])
    _, third = core([first, two])
    return keras.Model([one, two], [L.Concatenate()([first, second]), third])


@model
def recurrent_states() -> Any:
    one, two = ids("one"), ids("two")
    table = L.Embedding(11, 3, mask_zero=True)
    _, h, c = L.LSTM(5, return_state=True, name="encoder")(table(one))
    y = L.LSTM(5, return_sequences=True, name="decoder")(table(two), initial_state=[h, c])
    return keras.Model([one, two], L.TimeDistributed(L.Dense(11), name="head")(y))


@model
def operations() -> Any:
    x = vectors()
    y = keras.ops.concatenate([x, x * 2.0 + 1.0], axis=-1)
    return keras.Model(x, L.Dense(2)(keras.ops.transpose(y, (0, 2, 1))[:, 1:4]))


@model
def attention() -> Any:
    x = ids()
    y = L.Embedding(11, 6)(x)
    y = L.LayerNormalization()(y + L.MultiHeadAttention(2, 5)(y, y, use_causal_mask=True))
    return keras.Model(x, L.Dense(11)(y))


@model
def many_of_one_class() -> Any:
    x = y = vectors()
    for number in reversed(range(12)):  # named against their order
        y = L.Dense(3, name=f"dense_{number}")(y)
    return keras.Model(x, y)


@model
def half_precision() -> Any:
    x = vectors()
    y = L.Dense(7, dtype="float16")(x)
    y = L.Dense(7, dtype="bfloat16")(y)
    return keras.Model(x, L.Dense(2, dtype="mixed_bfloat16")(y))


def all_frozen(made: Any) -> None:
    made.trainable = False


def every_second_frozen(made: Any) -> None:
    for layer in made._flatten_layers(include_self=False):
        if layer.name in ("first", "norm", "after", "dense_3", "encoder"):
            layer.trainable = False


def frozen_but_inside(made: Any) -> None:
    for layer in made.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = False
            layer.layers[-1].trainable = True
