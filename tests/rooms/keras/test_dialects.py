"""Configs of every Keras, in the dialect of Keras 3.15."""

import copy
import importlib
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from tiesurgeon.rooms.keras.dialects import Modernised, modernise
from tiesurgeon.rooms.keras.dialects.catalogue import LAYERS, OPERATIONS

keras = pytest.importorskip("keras")
tf_keras = pytest.importorskip("tf_keras")
tf = pytest.importorskip("tensorflow")
old = tf_keras.layers


def load(result: Modernised) -> Any:
    """The model in stock Keras, which takes the config it is given apart."""
    return keras.saving.deserialize_keras_object(copy.deepcopy(result.config))


@cache
def stored_texts(name: str) -> tuple[str, str]:
    model = BUILDERS[name]()
    return model.to_json(), json.dumps(tf_keras.saving.serialize_keras_object(model))


def in_h5(name: str) -> dict[str, Any]:
    """A model's config as tf_keras writes it in `.h5` and with to_json."""
    config: dict[str, Any] = json.loads(stored_texts(name)[0])
    return config


def in_keras(name: str) -> dict[str, Any]:
    """The same model's config as tf_keras writes it in `.keras`."""
    config: dict[str, Any] = json.loads(stored_texts(name)[1])
    return config


# --- models of tf_keras, which must compute the same in stock Keras 3 -------------------------

Builder = Callable[[], Any]
BUILDERS: dict[str, Builder] = {}


def builder(build: Builder) -> Builder:
    BUILDERS[build.__name__] = build
    return build


def ids(length: int | None = 7) -> Any:
    return tf_keras.Input((length,), dtype="int32")


def sequence(width: int = 3, length: int = 7) -> Any:
    return tf_keras.Input((length, width))


@builder
def sequential_lstm_with_mask() -> Any:
    return tf_keras.Sequential(
        [
            tf_keras.Input((7,), dtype="int32"),
            old.Embedding(11, 3, mask_zero=True),
            old.LSTM(5, return_sequences=True, go_backwards=True),
            old.SimpleRNN(2),
        ]
    )


@builder
def gru_of_both_kinds() -> Any:
    x = sequence()
    return tf_keras.Model(x, [old.GRU(5)(x), old.GRU(5, reset_after=False)(x)])


@builder
def cells() -> Any:
    x = sequence()
    stacked = old.RNN([old.LSTMCell(5), old.GRUCell(3)], return_sequences=True)
    return tf_keras.Model(x, old.RNN(old.SimpleRNNCell(2))(stacked(x)))


@builder
def conv_lstm() -> Any:
    x = tf_keras.Input((3, 5, 5, 2))
    return tf_keras.Model(x, old.ConvLSTM2D(3, 3, recurrent_activation="sigmoid")(x))


@builder
def bidirectional() -> Any:
    x = sequence()
    y = old.Bidirectional(old.LSTM(5, return_sequences=True))(old.Masking()(x))
    backward = old.GRU(2, go_backwards=True)
    return tf_keras.Model(x, old.Bidirectional(old.GRU(2), "sum", backward_layer=backward)(y))


@builder
def time_distributed() -> Any:
    inner = tf_keras.Sequential([old.Conv2D(3, 3, input_shape=(5, 5, 2)), old.Flatten()])
    x = tf_keras.Input((3, 5, 5, 2))
    return tf_keras.Model(x, old.TimeDistributed(old.Dense(2))(old.TimeDistributed(inner)(x)))


@builder
def encoder_and_decoder() -> Any:
    source, target = ids(None), ids(None)
    _, h, c = old.LSTM(5, return_state=True)(old.Embedding(11, 3, mask_zero=True)(source))
    hidden = old.LSTM(5, return_sequences=True)(old.Embedding(11, 3)(target), initial_state=[h, c])
    return tf_keras.Model([source, target], old.Dense(11, activation="softmax")(hidden))


@builder
def bidirectional_with_initial_state() -> Any:
    source, target = sequence(), sequence()
    _, *states = old.Bidirectional(old.LSTM(5, return_state=True))(source)
    y = old.Bidirectional(old.LSTM(5))(target, initial_state=states)
    return tf_keras.Model([source, target], y)


@builder
def mask_as_an_argument() -> Any:
    x = ids()
    embedding = old.Embedding(11, 3, mask_zero=True)
    return tf_keras.Model(x, old.LSTM(5)(embedding(x), mask=embedding.compute_mask(x)))


@builder
def shared_layer() -> Any:
    x = tf_keras.Input((3,))
    dense = old.Dense(3)
    return tf_keras.Model(x, dense(old.ReLU()(dense(dense(x)))))


@builder
def nested_functional_called_twice() -> Any:
    a = tf_keras.Input((5,))
    inner = tf_keras.Model(a, [old.Dense(3)(a), old.Dense(2)(a)], name="inner")
    x, y = tf_keras.Input((5,)), tf_keras.Input((5,))
    last = inner(y)
    return tf_keras.Model([x, y], [*inner(x), old.Concatenate()(last), last[1]])


@builder
def nested_sequential_called_twice() -> Any:
    inner = tf_keras.Sequential([old.Dense(3, input_shape=(5,))], name="inner")
    x, y = tf_keras.Input((5,)), tf_keras.Input((5,))
    last = inner(y)
    return tf_keras.Model([x, y], [old.Dot(1)([inner(x), last]), last])


@builder
def nested_sequential_without_input() -> Any:
    inner = tf_keras.Sequential([old.Dense(3)], name="inner")
    x, y = tf_keras.Input((5,)), tf_keras.Input((5,))
    return tf_keras.Model([x, y], [old.Dot(1)([inner(x), inner(y)]), inner(x)])


@builder
def models_three_deep() -> Any:
    a, b, x = tf_keras.Input((5,)), tf_keras.Input((5,)), tf_keras.Input((5,))
    one = tf_keras.Model(a, old.BatchNormalization()(old.Dense(3)(a)), name="one")
    two = tf_keras.Model(b, old.Dense(5)(one(b, training=False)), name="two")
    return tf_keras.Model(x, [two(x), one(two(two(x)))])


@builder
def model_first_in_a_sequential() -> Any:
    a = tf_keras.Input((5,))
    return tf_keras.Sequential([tf_keras.Model(a, old.Dense(3)(a)), old.Dense(2)])


@builder
def sequential_built_by_a_call() -> Any:
    model = tf_keras.Sequential([old.Dense(3), old.Dense(2)])
    model(np.zeros((2, 5), "float32"))
    return model


@builder
def multi_head_attention() -> Any:
    x, y, z = sequence(5), sequence(5, 3), sequence(5, 3)
    a = old.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    b, scores = old.MultiHeadAttention(2, 3)(x, y, z, return_attention_scores=True)
    return tf_keras.Model([x, y, z], [old.LayerNormalization()(old.Add()([a, b])), scores])


@builder
def attention() -> Any:
    x, y = sequence(5), sequence(5, 3)
    outputs = [
        old.Attention(use_scale=True)([x, y]),
        old.Attention(score_mode="concat")([x, y, y]),
        old.AdditiveAttention()([x, y]),
    ]
    return tf_keras.Model([x, y], outputs)


@builder
def convolutions() -> Any:
    x = y = tf_keras.Input((13, 13, 3))
    for layer in (
        old.Conv2D(4, 3, padding="same", strides=2, groups=1),
        old.BatchNormalization(),
        old.DepthwiseConv2D(3),
        old.LeakyReLU(0.1),
        old.SeparableConv2D(5, 3, padding="same"),
        old.Conv2DTranspose(3, 3, strides=2, output_padding=1),
        old.PReLU(shared_axes=[1, 2]),
        old.SpatialDropout2D(0.2),
        old.UpSampling2D(),
        old.ZeroPadding2D(1),
        old.ThresholdedReLU(0.1),
        old.MaxPooling2D(),
        old.GlobalAveragePooling2D(keepdims=True),
    ):
        y = layer(y)
    return tf_keras.Model(x, y)


@builder
def merges() -> Any:
    x, y = tf_keras.Input((5,)), tf_keras.Input((5,))
    classes = (old.Add, old.Subtract, old.Multiply, old.Average, old.Maximum, old.Concatenate)
    merged = [one()([x, y]) for one in classes]
    return tf_keras.Model([x, y], [*merged, old.Dot(1, normalize=True)([x, y])])


@builder
def named_inputs_and_outputs() -> Any:
    a, b = tf_keras.Input((3,), name="a"), tf_keras.Input((3,), name="b")
    return tf_keras.Model({"a": a, "b": b}, {"sum": old.Add()([a, b]), "dense": old.Dense(2)(a)})


@builder
def parts_of_a_layer() -> Any:
    dense = old.Dense(
        3,
        kernel_initializer=tf_keras.initializers.VarianceScaling(),
        kernel_regularizer="l2",
        kernel_constraint=tf_keras.constraints.MaxNorm(2),
        activity_regularizer=tf_keras.regularizers.L1L2(0.1, 0.2),
        activation=tf.nn.softmax,
        input_shape=(5,),
    )
    return tf_keras.Sequential([dense])


@builder
def arithmetic() -> Any:
    x, y = sequence(), sequence()
    z = 3.0 - (x * 2.0 + y) / 2.0
    z = tf.maximum(-z, np.ones(3, "float32")) + tf.square(y) * tf.constant([1.0, 2.0, 3.0])
    z = tf.nn.leaky_relu(z) + tf.nn.gelu(y) + tf.nn.softmax(x, axis=1) + tf.sqrt(tf.abs(x))
    return tf_keras.Model([x, y], tf.clip_by_value(z, -1.0, 1.0))


@builder
def reductions_and_shapes() -> Any:
    x, y = sequence(), sequence()
    outputs = [
        tf.reduce_mean(x, axis=1),
        tf.reduce_max(x, axis=[1, 2], keepdims=True),
        tf.cumsum(x, axis=1),
        tf.argmax(x, axis=-1),
        tf.reshape(x, [-1, 21]),
        tf.concat([x, y], axis=-1),
        tf.stack([x, y], axis=1),
        tf.squeeze(tf.expand_dims(x, -1), axis=-1),
        tf.cast(x > 0.0, "float32"),
        tf.gather(x, [0, 2], axis=1),
        *tf.split(y, [1, 2], axis=2),
        x[:, 0],
        x[:, 1:5:2, None, ::2],
    ]
    return tf_keras.Model([x, y], outputs)


@builder
def weights_tied_in_keras_2() -> Any:
    embedding = old.Embedding(11, 3)
    x, vocabulary = ids(), ids(11)
    hidden = old.LSTM(3, return_sequences=True)(embedding(x))
    logits = tf.matmul(hidden, embedding(vocabulary), transpose_b=True)
    return tf_keras.Model([x, vocabulary], logits)


def examples(model: Any) -> list[Any]:
    chance = np.random.default_rng(0)
    arrays = []
    for tensor in tf.nest.flatten(model.inputs or tf_keras.Input((5,))):
        shape = [2, *(7 if size is None else size for size in tensor.shape[1:])]
        if tensor.dtype.is_integer:
            arrays.append(tf.constant(chance.integers(0, 11, shape), tensor.dtype))
        else:
            arrays.append(tf.constant(chance.normal(size=shape), tensor.dtype))
    return arrays


def layers_with_weights(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layers_with_weights(layer)
        elif layer.weights:
            yield layer


def copy_weights(source: Any, target: Any) -> None:
    chance = np.random.default_rng(1)
    for one in layers_with_weights(source):
        one.set_weights([np.abs(chance.normal(size=w.shape)) * 0.3 for w in one.get_weights()])
    pairs = zip(layers_with_weights(source), layers_with_weights(target), strict=True)
    for one, other in pairs:
        other.set_weights(one.get_weights())


@pytest.mark.parametrize("name", BUILDERS)
def test_a_keras_2_model_computes_the_same(name: str) -> None:
    tf_keras.backend.clear_session()
    keras.backend.clear_session()
    before = BUILDERS[name]()
    config = json.loads(before.to_json())
    after = load(modernise(config, keras_version="2.21.0"))
    copy_weights(before, after)
    arrays = examples(before)
    inputs = tf.nest.pack_sequence_as(before.input, arrays) if before.inputs else arrays[0]
    expected, found = before(inputs, training=False), after(inputs, training=False)
    tf.nest.assert_same_structure(expected, found)
    for one, other in zip(tf.nest.flatten(expected), tf.nest.flatten(found), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_h5_and_keras_say_the_same(name: str) -> None:
    assert modernise(in_h5(name)) == modernise(in_keras(name))


@pytest.mark.parametrize("name", BUILDERS)
def test_the_version_shows_in_the_config_itself(name: str) -> None:
    config = in_keras(name)
    assert modernise(config) == modernise(config, keras_version="2.21.0")


@pytest.mark.parametrize("name", BUILDERS)
def test_modernising_twice_is_modernising_once(name: str) -> None:
    once = modernise(in_h5(name))
    assert modernise(once.config).config == once.config


# --- Keras 3 ----------------------------------------------------------------------------------


def keras_3_model() -> Any:
    new = keras.layers
    a, x = keras.Input((3,)), keras.Input((7, 3))
    inner = keras.Model(a, new.Dense(5)(a), name="inner")
    tied = new.ReversibleEmbedding(11, 3, name="tied")
    states = new.LSTM(5, return_state=True)(x)[1:]
    y = new.LSTM(5)(x, initial_state=states) + inner(keras.ops.mean(x, axis=1))
    y = keras.ops.concatenate([y, inner(x[:, 0])])
    heads = new.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    return keras.Model(x, [y, tied(heads, reverse=True), inner(x[:, 1])])


# Keras' own TensorFlow backend, on NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("history", ["h5", "keras"])
def test_a_keras_3_model_stays_itself(history: str, tmp_path: Any) -> None:
    h5py = pytest.importorskip("h5py")
    model = keras_3_model()
    path = tmp_path / f"model.{history}"
    model.save(path)
    if history == "h5":
        with h5py.File(path) as file:
            config = json.loads(file.attrs["model_config"])
    else:
        config = json.loads(zipfile.ZipFile(path).read("config.json"))
    assert json.dumps(load(modernise(config)).get_config()) == json.dumps(model.get_config())


def test_an_operation_in_h5_gets_its_module_back() -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Add()([x + x, x]))
    config = model.get_config()
    for layer in config["layers"]:
        del layer["module"], layer["registered_name"]
    entry = {"class_name": "Functional", "config": config}
    layers = modernise(entry, keras_version="3.15.1").config["config"]["layers"]
    assert [layer["module"] for layer in layers] == [
        "keras.layers",
        "keras.src.ops.numpy",
        "keras.layers",
    ]


def test_the_catalogue_holds_what_stock_keras_has() -> None:
    public = {
        name
        for name, one in vars(keras.layers).items()
        if isinstance(one, type) and issubclass(one, keras.layers.Layer) and one.__name__ == name
    }
    assert public - {"Layer", "TorchModuleWrapper"} <= LAYERS
    for name, module in OPERATIONS.items():
        assert isinstance(getattr(importlib.import_module(module), name), type)


# --- single facts -----------------------------------------------------------------------------


def layer(class_name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": class_name.lower(), **config}}


def one_layer(class_name: str, version: str = "2.2.4", **config: Any) -> dict[str, Any]:
    """The entry of a layer standing alone in a Sequential."""
    model = {"class_name": "Sequential", "config": [layer(class_name, **config)]}
    entry: dict[str, Any] = modernise(model, keras_version=version).config["config"]["layers"][-1]
    return entry


def functional(*layers: dict[str, Any], inputs: Any, outputs: Any) -> dict[str, Any]:
    for entry in layers:
        entry.setdefault("name", entry["config"]["name"])
        entry.setdefault("inbound_nodes", [])
    config = {"name": "m", "layers": layers, "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Model", "config": config}


def input_layer(name: str = "x", *shape: int | None) -> dict[str, Any]:
    entry = layer("InputLayer", batch_input_shape=[None, *shape], dtype="float32", sparse=False)
    entry["config"]["name"] = name
    return entry


def test_hard_sigmoid_of_keras_2_is_flagged() -> None:
    gru = layer("GRU", units=5, recurrent_activation="hard_sigmoid")
    config = {"class_name": "Sequential", "config": [gru]}
    result = modernise(config, keras_version="2.2.4")
    entry = result.config["config"]["layers"][0]
    assert entry["dialect"] == {"hard_sigmoid": "0.2x+0.5"}
    assert entry["config"]["recurrent_activation"] == "hard_sigmoid"
    assert result.notes == (
        "gru: recurrent_activation hard_sigmoid is the Keras 2 one (0.2 x + 0.5)",
    )


def test_hard_sigmoid_of_keras_3_is_not_flagged() -> None:
    assert "dialect" not in one_layer("Activation", "3.0.0", activation="hard_sigmoid")


def test_hard_sigmoid_in_a_wrapper_is_flagged_on_the_inner_layer() -> None:
    inner = layer("LSTM", units=5, recurrent_activation="hard_sigmoid")
    entry = one_layer("Bidirectional", layer=inner, merge_mode="concat")
    assert "dialect" not in entry
    assert entry["config"]["layer"]["dialect"] == {"hard_sigmoid": "0.2x+0.5"}


@pytest.mark.parametrize("class_name", ["LSTM", "GRU"])
def test_a_cudnn_layer_becomes_a_plain_one(class_name: str) -> None:
    entry = one_layer(f"CuDNN{class_name}", units=5, batch_input_shape=[None, 7, 3])
    assert (entry["class_name"], entry["dialect"]) == (class_name, {"cudnn": True})
    assert entry["config"].get("reset_after", True)
    assert entry["config"]["recurrent_activation"] == "sigmoid"


def test_a_gru_that_says_nothing_resets_before() -> None:
    assert one_layer("GRU", units=5)["config"]["reset_after"] is False


def test_a_policy_becomes_its_name() -> None:
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    assert one_layer("Dense", units=5, dtype=policy)["config"]["dtype"] == "mixed_float16"


def test_time_major_true_is_noted() -> None:
    config = {"class_name": "Sequential", "config": [layer("LSTM", units=5, time_major=True)]}
    assert modernise(config).notes == (
        "lstm: time_major=True has no equal in Keras 3 and was left out",
    )


def test_a_causal_attention_says_so_in_its_calls() -> None:
    attention = layer("Attention", causal=True, use_scale=False)
    attention["inbound_nodes"] = [[["x", 0, 0, {}], ["x", 0, 0, {}]]]
    model = functional(
        input_layer("x", 7, 3), attention, inputs=[["x", 0, 0]], outputs=[["attention", 0, 0]]
    )
    entry = modernise(model).config["config"]["layers"][1]
    assert entry["inbound_nodes"][0]["kwargs"] == {"use_causal_mask": True}


def test_an_array_in_a_config_becomes_numbers() -> None:
    entry = one_layer("LeakyReLU", alpha={"type": "ndarray", "value": 0.1})
    assert entry["config"]["negative_slope"] == 0.1


def test_a_saved_model_s_wrapped_tuples_become_lists() -> None:
    shape = {"class_name": "TensorShape", "items": [None, 5]}
    size = {"class_name": "__tuple__", "items": [1, 1]}
    config = one_layer("Conv2D", filters=3, kernel_size=size, batch_input_shape=shape)["config"]
    assert config["kernel_size"] == [1, 1]


def test_a_layer_shared_with_a_wrapper_keeps_its_id() -> None:
    inner = {**layer("Dense", units=3), "shared_object_id": 5}
    entry = one_layer("TimeDistributed", layer=inner)
    assert entry["config"]["layer"]["shared_object_id"] == 5


def test_a_custom_layer_passes_through() -> None:
    config: dict[str, Any] = {"time_major": True, "batch_input_shape": [None, 3]}
    entry = one_layer("Mine", **config)
    assert entry["config"] == {"name": "mine", **config}
    assert entry["registered_name"] == "Mine"


def test_a_custom_class_with_a_builtin_name_passes_through() -> None:
    entry = {**layer("LSTM", time_major=True), "module": "mine", "registered_name": "Mine>LSTM"}
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": [entry]}}
    found = modernise(model).config["config"]["layers"][0]
    assert found["config"]["time_major"] is True


def test_an_unknown_function_of_tensorflow_is_left_and_noted() -> None:
    fft = layer("TFOpLambda", function="signal.rfft")
    fft["inbound_nodes"] = [["x", 0, 0, {}]]
    model = functional(
        input_layer("x", 3), fft, inputs=[["x", 0, 0]], outputs=[["tfoplambda", 0, 0]]
    )
    result = modernise(model)
    assert result.config["config"]["layers"][1]["class_name"] == "TFOpLambda"
    assert result.notes == (
        "tfoplambda: Keras 3 has no operation for this use of TensorFlow's signal.rfft",
    )


def test_a_slash_in_a_name_is_replaced_everywhere() -> None:
    dense = {**layer("Dense", units=2), "inbound_nodes": [[["a/x", 0, 0, {}]]]}
    model = functional(
        input_layer("a/x", 3), dense, inputs=[["a/x", 0, 0]], outputs=[["dense", 0, 0]]
    )
    result = modernise(model)
    assert load(result).layers[0].name == "a_x"
    assert result.config["config"]["layers"][0]["dialect"] == {"name": "a/x"}


def test_a_sequential_names_its_input_after_its_first_layer() -> None:
    layers = [layer("Dense", units=2, batch_input_shape=[None, 3]), layer("ReLU")]
    model = modernise({"class_name": "Sequential", "config": layers})
    first = model.config["config"]["layers"][0]
    assert first["config"]["name"] == "dense_input"
    assert first["config"]["batch_shape"] == [None, 3]


def test_the_given_config_is_not_changed() -> None:
    config = in_h5("encoder_and_decoder")
    kept = copy.deepcopy(config)
    modernise(config)
    assert config == kept


# --- Keras 1 ----------------------------------------------------------------------------------


def keras_1(*layers: dict[str, Any]) -> Modernised:
    return modernise({"class_name": "Sequential", "keras_version": "1.2.2", "config": layers})


def test_a_recurrent_model_of_keras_1_loads() -> None:
    lstm = {
        "output_dim": 5,
        "init": "glorot_uniform",
        "inner_init": "orthogonal",
        "forget_bias_init": "one",
        "activation": "tanh",
        "inner_activation": "hard_sigmoid",
        "W_regularizer": {"l2": 0.01, "name": "L1L2Regularizer", "l1": 0.0},
        "U_regularizer": None,
        "b_regularizer": None,
        "dropout_W": 0.1,
        "dropout_U": 0.2,
        "return_sequences": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "consume_less": "cpu",
        "input_dim": 3,
        "input_length": None,
    }
    embedding = {
        "input_dim": 11,
        "output_dim": 3,
        "init": "uniform",
        "input_length": 7,
        "mask_zero": True,
        "batch_input_shape": [None, 7],
        "input_dtype": "int32",
        "W_regularizer": None,
        "activity_regularizer": None,
        "W_constraint": {"name": "MaxNorm", "m": 2, "axis": 0},
        "dropout": 0.0,
    }
    dense = {"output_dim": 2, "bias": True, "W_regularizer": None, "input_dim": None}
    result = keras_1(
        layer("Embedding", **embedding),
        layer("LSTM", **lstm),
        layer("Dropout", p=0.3),
        layer("Dense", **dense),
    )
    model = load(result)
    assert [w.shape for w in model.weights] == [(11, 3), (3, 20), (5, 20), (20,), (5, 2), (2,)]
    assert model.inputs[0].dtype == "int32"
    assert model.layers[1].cell.recurrent_dropout == 0.2
    assert model.layers[2].rate == 0.3
    assert result.config["config"]["layers"][2]["dialect"] == {
        "keras1": True,
        "hard_sigmoid": "0.2x+0.5",
    }


def test_an_image_model_of_keras_1_loads() -> None:
    convolution = {
        "nb_filter": 3,
        "nb_row": 3,
        "nb_col": 5,
        "subsample": [2, 1],
        "border_mode": "same",
        "dim_ordering": "tf",
        "init": "he_normal",
        "bias": False,
        "batch_input_shape": [None, 13, 13, 2],
    }
    pooling = {"pool_size": [2, 2], "strides": [2, 2], "border_mode": "valid", "dim_ordering": "tf"}
    normalization = {"epsilon": 1e-5, "mode": 0, "axis": -1, "momentum": 0.9}
    result = keras_1(
        layer("Convolution2D", **convolution),
        layer("BatchNormalization", gamma_regularizer=None, **normalization),
        layer("ZeroPadding2D", padding=[1, 2, 0, 1], dim_ordering="tf"),
        layer("MaxPooling2D", **pooling),
        layer("GlobalAveragePooling2D", dim_ordering="tf"),
    )
    model = load(result)
    assert model.layers[0].kernel.shape == (3, 5, 2, 3)
    assert model.layers[3].output.shape == (None, 5, 7, 3)


def test_a_text_convolution_of_keras_1_loads() -> None:
    convolution = {
        "nb_filter": 3,
        "filter_length": 5,
        "subsample_length": 1,
        "border_mode": "valid",
        "init": "glorot_uniform",
        "input_dim": 2,
        "input_length": 13,
    }
    pooling = {"pool_length": 2, "stride": 2, "border_mode": "valid"}
    result = keras_1(layer("Convolution1D", **convolution), layer("MaxPooling1D", **pooling))
    convolution_entry = result.config["config"]["layers"][1]
    assert convolution_entry["class_name"] == "Conv1D"
    assert convolution_entry["config"]["kernel_size"] == 5
    assert convolution_entry["config"]["filters"] == 3


def test_a_channels_first_kernel_of_keras_1_is_flagged() -> None:
    convolution = {"nb_filter": 3, "nb_row": 3, "nb_col": 5, "dim_ordering": "th"}
    result = keras_1(layer("Convolution2D", batch_input_shape=[None, 2, 7, 7], **convolution))
    entry = result.config["config"]["layers"][1]
    assert entry["config"]["data_format"] == "channels_first"
    assert entry["dialect"] == {"keras1": True, "kernel": "channels_first"}


MODES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
}


@pytest.mark.parametrize("mode", MODES)
def test_a_merge_becomes_the_layer_of_its_mode(mode: str) -> None:
    merge = layer("Merge", mode=mode, mode_type="raw", concat_axis=-1, dot_axes=-1, arguments={})
    merge["inbound_nodes"] = [[["x", 0, 0], ["y", 0, 0]]]
    model = functional(
        input_layer("x", 3),
        input_layer("y", 3),
        merge,
        inputs=[["x", 0, 0], ["y", 0, 0]],
        outputs=[["merge", 0, 0]],
    )
    result = modernise(model, keras_version="1.2.2")
    assert result.config["config"]["layers"][2]["class_name"] == MODES[mode]
    assert load(result).output_shape == (None, 6 if mode == "concat" else 3)


def test_a_merge_by_python_code_is_noted() -> None:
    merge = layer("Merge", mode="lambda x: x", mode_type="lambda")
    assert "merges by Python code" in keras_1(merge).notes[0]


def test_a_sequential_that_begins_with_a_merge_becomes_functional() -> None:
    branches = [
        {
            "class_name": "Sequential",
            "config": [
                {
                    "class_name": "Dense",
                    "config": {"name": f"d{i}", "units": 2, "batch_input_shape": [None, width]},
                }
            ],
        }
        for i, width in enumerate((3, 5))
    ]
    merge = layer("Merge", mode="concat", concat_axis=-1, layers=branches)
    config = [merge, layer("Dense", units=7)]
    result = modernise({"class_name": "Sequential", "keras_version": "2.0.6", "config": config})
    model = load(result)
    assert [one["name"] for one in result.config["config"]["layers"]] == [
        "d0_input",
        "d0",
        "d1_input",
        "d1",
        "merge",
        "dense",
    ]
    assert model.input_shape == [(None, 3), (None, 5)]
    assert model.output_shape == (None, 7)


# --- malformed input --------------------------------------------------------------------------

JUNK: list[Any] = [
    None,
    7,
    "x",
    [],
    {},
    [[[]]],
    {"class_name": 3},
    ["x", 0],
    [None],
    -1.5,
    [["x", -9, 9, 9]],
]


def spoilt(value: Any, chance: random.Random) -> Any:
    """A copy with one thing, anywhere within, replaced by junk."""
    value = copy.deepcopy(value)
    at = parent = value
    for _ in range(chance.randint(1, 12)):
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = chance.choice(keys)
        if not isinstance(at[key], dict | list) or not at[key]:
            break
        parent, at = at, at[key]
    else:
        at = parent
    at[key] = copy.deepcopy(chance.choice(JUNK))
    return value


SPOILABLE = ["encoder_and_decoder", "nested_functional_called_twice", "reductions_and_shapes"]


@pytest.mark.parametrize("name", SPOILABLE)
def test_malformed_configs_raise_only_one_line_value_errors(name: str) -> None:
    chance = random.Random(0)
    config = in_h5(name)
    messages = []
    for _ in range(400):
        try:
            modernise(spoilt(config, chance))
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("config", [{}, {"name": "Sequential", "layers": []}, {"class_name": "A"}])
def test_what_is_no_model_config_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a Keras model config"):
        modernise(config)


def test_a_config_nested_too_deeply_is_refused() -> None:
    config: dict[str, Any] = layer("Dense")
    for _ in range(5000):
        config = layer("TimeDistributed", layer=config)
    with pytest.raises(ValueError, match="nested too deeply"):
        modernise(config)
