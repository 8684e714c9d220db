"""What changed in each layer between Keras 2 and Keras 3.15: one line a rule, with its reason."""

from typing import Any

from tiesurgeon.rooms.keras.dialects.draft import (
    Draft,
    Rule,
    become,
    discard,
    drop,
    rename,
)
from tiesurgeon.rooms.keras.dialects.merges import upgrade_merge

CLASS_NAMES = {
    # tf.keras of TF 1.13 to 2.1 wrote the Python name of the versioned class.
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "UnifiedLSTM": "LSTM",
    "UnifiedGRU": "GRU",
    # .h5 holds the Python name of the class, not the one it is exported under.
    "GroupedQueryAttention": "GroupQueryAttention",
    # Aliases that handwritten configs use.
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "MaxPool1D": "MaxPooling1D",
    "MaxPool2D": "MaxPooling2D",
    "AvgPool1D": "AveragePooling1D",
    "AvgPool2D": "AveragePooling2D",
}

# Every layer of Keras 2 wrote these; in Keras 3 the shape belongs to the InputLayer.
EVERY_LAYER: tuple[Rule, ...] = (
    discard("batch_input_shape", "input_shape", "batch_size", "input_dtype"),
    discard("dynamic", "autocast", "experimental_autocast"),  # tf.keras only
)


def _gru(draft: Draft) -> None:
    # Keras before 2.1.4 had no such option and no second bias; Keras 3's default is True.
    draft.config.setdefault("reset_after", False)


def _implementation(draft: Draft) -> None:
    if draft.config.get("implementation") == 0:  # Keras 2.0's "consume_less=cpu": same numbers
        draft.config["implementation"] = 1


def _cudnn(draft: Draft) -> None:
    draft.config.update(activation="tanh", recurrent_activation="sigmoid", use_bias=True)
    draft.dialect["cudnn"] = True
    draft.note("its weights are laid out as cuDNN's (two biases, transposed gates)")


def _cudnn_gru(draft: Draft) -> None:
    draft.config["reset_after"] = True


def _flatten_axis(draft: Draft) -> None:
    axis = draft.config.get("axis")  # a list in tf.keras since 1.13
    if isinstance(axis, list) and len(axis) == 1:
        draft.config["axis"] = axis[0]


def _causal(draft: Draft) -> None:
    if draft.config.pop("causal", False):  # an argument of the call since 2.10
        draft.call["use_causal_mask"] = True


def _score_mode(draft: Draft) -> None:
    # The default; from .h5 Keras 3 takes the word for its function `layers.dot`.
    if draft.config.get("score_mode") == "dot":
        del draft.config["score_mode"]


def _sync_batch_normalization(draft: Draft) -> None:
    draft.config["synchronized"] = True


def _upsampling(draft: Draft) -> None:
    before_2_3 = () < draft.context.version < (2, 3)
    if before_2_3 and draft.config.get("interpolation") == "bilinear":
        draft.note("bilinear in Keras before 2.3 did not centre pixels by halves; Keras 3 does")


def _random_crop(draft: Draft) -> None:
    if draft.context.major < 3:
        draft.note("at inference Keras 2 resized to the crop's size; Keras 3 leaves images whole")


def _lambda(draft: Draft) -> None:
    config = draft.config
    for key in ("function", "output_shape", "mask"):
        kind = config.pop(f"{key}_type", None)
        config.pop("module" if key == "function" else f"{key}_module", None)
        value = config.get(key)
        if kind == "lambda" and isinstance(value, list) and len(value) == 3:
            code, defaults, closure = value
            config[key] = {
                "class_name": "__lambda__",
                "config": {"code": code, "defaults": defaults, "closure": closure},
            }
        elif kind == "function" and isinstance(value, str):
            config[key] = {
                "module": "builtins",
                "class_name": "function",
                "config": value,
                "registered_name": "function",
            }
    draft.note("a Lambda's Python code runs only where it was written")


def _for_each(names: str, *rules: Rule) -> dict[str, tuple[Rule, ...]]:
    return dict.fromkeys(names.split(), rules)


# Keras 3's recurrent layers take batch-major input only, and no constants.
_RECURRENT: tuple[Rule, ...] = (
    drop("time_major"),
    drop("num_constants", 0),
    discard("_num_constants", "input_dim", "input_length"),
    _implementation,
)
# Base classes wrote their own arguments for subclasses that never had them.
_NO_GROUPS = drop("groups", 1)
_NO_KERNEL = discard("kernel_initializer", "kernel_regularizer", "kernel_constraint", "rank")
_NO_FILTERS = discard("filters")
_NO_VIRTUAL_BATCH: tuple[Rule, ...] = (
    drop("virtual_batch_size"),
    discard("adjustment", "fused"),
)

_RANDOM = """
    RandomBrightness RandomContrast RandomFlip RandomHeight RandomRotation
    RandomTranslation RandomWidth RandomZoom
"""

RULES: dict[str, tuple[Rule, ...]] = {
    **_for_each("SimpleRNN LSTM RNN StackedRNNCells ConvLSTM1D ConvLSTM2D ConvLSTM3D", *_RECURRENT),
    "GRU": (*_RECURRENT, _gru),
    "GRUCell": (_implementation, _gru),
    **_for_each("LSTMCell SimpleRNNCell", _implementation),
    "Bidirectional": (discard("weights", "input_dim", "input_length", "num_constants"),),
    "CuDNNLSTM": (_cudnn, *_RECURRENT, become("LSTM")),
    "CuDNNGRU": (_cudnn, _cudnn_gru, *_RECURRENT, become("GRU")),
    **_for_each("Conv1DTranspose Conv2DTranspose Conv3DTranspose", _NO_GROUPS),
    **_for_each("SeparableConv1D SeparableConv2D", _NO_GROUPS, _NO_KERNEL),
    **_for_each("DepthwiseConv1D DepthwiseConv2D", _NO_GROUPS, _NO_KERNEL, _NO_FILTERS),
    **_for_each(
        "SpatialDropout1D SpatialDropout2D SpatialDropout3D", discard("noise_shape", "trainable")
    ),
    "Embedding": (discard("input_length"),),
    "Dense": (discard("input_dim"),),
    "MultiHeadAttention": (
        discard("query_shape", "key_shape", "value_shape"),  # known from the call in Keras 3
        discard("softmax_robust_masking"),  # tf_keras only
    ),
    "Attention": (_score_mode, _causal),
    "AdditiveAttention": (_causal,),
    "LeakyReLU": (rename(alpha="negative_slope"),),
    "ThresholdedReLU": (rename(theta="threshold"), become("ReLU")),  # x where x > theta, else 0
    "BatchNormalization": (_flatten_axis, *_NO_VIRTUAL_BATCH),
    "SyncBatchNormalization": (
        _flatten_axis,
        *_NO_VIRTUAL_BATCH,
        _sync_batch_normalization,
        become("BatchNormalization"),
    ),
    "UpSampling2D": (_upsampling,),
    "Lambda": (_lambda,),
    "Merge": (upgrade_merge,),
    "Discretization": (discard("trainable"),),
    **_for_each(_RANDOM, discard("rng_type")),
    "RandomCrop": (discard("rng_type"), _random_crop),
}


def apply_rules(draft: Draft) -> None:
    """Rewrites a Keras 2 layer's class and config as Keras 3.15 takes them."""
    for rule in (*EVERY_LAYER, *RULES.get(draft.class_name, ())):
        rule(draft)


def class_name_today(class_name: Any) -> Any:
    """The name under which the rules know a class."""
    return CLASS_NAMES.get(class_name, class_name) if isinstance(class_name, str) else class_name
