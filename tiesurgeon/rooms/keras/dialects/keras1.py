"""Keras 1: its words, in those of Keras 2.

From keras 1.2's layers and from keras/legacy/interfaces.py of Keras 2, which translates calls
(though never stored configs) the same way.
"""

from collections.abc import Iterable
from typing import Any

from tiesurgeon.rooms.keras.dialects.draft import Draft, Rule, discard, drop, rename

CLASS_NAMES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}

_CONVOLUTIONS = (*CLASS_NAMES.values(), "Conv3D", "DepthwiseConv2D")
_RECURRENT = ("SimpleRNN", "LSTM", "GRU")
# Layers whose stored kernels Keras 2 transposed or joined when it loaded a Keras 1 file.
_OTHER_WEIGHTS = frozenset(_CONVOLUTIONS + _RECURRENT) - {"Dense"}

_KEYS = {
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "inner_activation": "recurrent_activation",
    "depthwise_init": "depthwise_initializer",
    "pointwise_init": "pointwise_initializer",
    "gamma_init": "gamma_initializer",
    "beta_init": "beta_initializer",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "depthwise_regularizer": "depthwise_regularizer",
    "W_constraint": "kernel_constraint",
    "U_constraint": "recurrent_constraint",
    "b_constraint": "bias_constraint",
    "bias": "use_bias",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "nb_filter": "filters",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "atrous_rate": "dilation_rate",
    "dim_ordering": "data_format",
    "filter_length": "kernel_size",
    "pool_length": "pool_size",
    "stride": "strides",
}
# Keys that only Keras 1 wrote: one of them is enough to know the layer's age.
MARKS = frozenset(_KEYS) - {"bias", "init", "stride", "depthwise_regularizer"} | {
    "nb_row",
    "kernel_dim1",
    "consume_less",
    "input_dtype",
}

_INITIALIZERS = {
    "one": "ones",
    "zero": "zeros",
    "normal": "random_normal",
    "uniform": "random_uniform",
}
_DATA_FORMATS = {"th": "channels_first", "tf": "channels_last"}


def is_keras1(layer: dict[str, Any]) -> bool:
    """True when a layer's own entry shows that Keras 1 wrote it."""
    config = layer.get("config")
    return isinstance(config, dict) and not MARKS.isdisjoint(config)


def upgrade(draft: Draft) -> None:
    """Rewrites a Keras 1 layer in the words of Keras 2."""
    for rule in _RULES.get(draft.class_name, ()):
        rule(draft)
    draft.class_name = CLASS_NAMES.get(draft.class_name, draft.class_name)
    _join_kernel_size(draft.config)
    rename(**_KEYS)(draft)
    discard("weights", "consume_less")(draft)
    if draft.class_name != "Embedding":  # there it is the vocabulary, elsewhere the input's width
        discard("input_dim", "input_length")(draft)
    _upgrade_values(draft.config)
    if draft.class_name in _OTHER_WEIGHTS:
        draft.dialect["keras1"] = True
        if draft.config.get("data_format") == "channels_first":
            draft.dialect["kernel"] = "channels_first"  # (out, in, rows, columns)
        draft.note("its weights are laid out as Keras 1 did")


def _join_kernel_size(config: dict[str, Any]) -> None:
    for keys in (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3")):
        if all(key in config for key in keys):
            config["kernel_size"] = [config.pop(key) for key in keys]


def _upgrade_values(config: dict[str, Any]) -> None:
    for key, value in config.items():
        if key.endswith("_initializer") and isinstance(value, str):
            config[key] = _INITIALIZERS.get(value, value)
    ordering = config.get("data_format")
    if isinstance(ordering, str):
        config["data_format"] = _DATA_FORMATS.get(ordering, ordering)
        if ordering == "default":
            del config["data_format"]


def _embedding(draft: Draft) -> None:
    rename(
        init="embeddings_initializer",
        W_regularizer="embeddings_regularizer",
        W_constraint="embeddings_constraint",
    )(draft)
    drop("dropout", 0, 0.0)(draft)  # dropped whole words; Keras 2 removed it


def _batch_normalization(draft: Draft) -> None:
    drop("mode", 0)(draft)  # 1: per sample; 2: batch statistics at inference too


def _forget_bias(draft: Draft) -> None:
    initial = draft.config.pop("forget_bias_init", "one")
    draft.config.setdefault("unit_forget_bias", initial in ("one", "ones"))


def _padding_2d(draft: Draft) -> None:
    padding = draft.config.get("padding")
    if isinstance(padding, list) and len(padding) == 4:  # top, bottom, left, right
        draft.config["padding"] = [padding[:2], padding[2:]]


def _for_each(names: Iterable[str], *rules: Rule) -> dict[str, tuple[Rule, ...]]:
    return dict.fromkeys(names, rules)


_RULES: dict[str, tuple[Rule, ...]] = {
    **_for_each(("Dense", "TimeDistributedDense", "SimpleRNN", "GRU"), rename(output_dim="units")),
    "LSTM": (rename(output_dim="units"), _forget_bias),
    "Embedding": (_embedding,),
    **_for_each(("Dropout", "GaussianDropout"), rename(p="rate")),
    **_for_each((f"SpatialDropout{n}D" for n in (1, 2, 3)), rename(p="rate")),
    "GaussianNoise": (rename(sigma="stddev"),),
    "UpSampling1D": (rename(length="size"),),
    "PReLU": (rename(init="alpha_initializer"),),
    "BatchNormalization": (_batch_normalization, discard("init")),
    "ZeroPadding2D": (_padding_2d,),
    "Deconvolution2D": (discard("output_shape"),),  # implied by the input's
}
