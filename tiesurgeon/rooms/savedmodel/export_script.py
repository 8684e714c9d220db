"""Runs in a process of its own, with Keras and without tiesurgeon: a model becomes a SavedModel.

Reads a JSON spec (see `write.py`), prints one JSON document. Keras' own `model.export` tracks
each variable as its own object and as TensorFlow's, so it writes every one twice (keras#23553);
here only TensorFlow's are held.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import keras
import tensorflow as tf


class Exported(tf.Module):  # type: ignore[misc]
    """What `tf.saved_model.load` gives back: `serve`, and the variables in lists and by name."""

    # As attributes they are saved; tf.Module's own are computed.
    variables: Any = ()
    trainable_variables: Any = ()
    non_trainable_variables: Any = ()

    def __init__(self, model: Any, names: dict[str, list[str]]) -> None:
        super().__init__()
        self.weights = by_name(model, names)
        self.serve = tf.function(
            lambda inputs: model(inputs, training=False),
            input_signature=[signature(model)],
            autograph=False,
        )
        self.trainable_variables = [v.value for v in model.trainable_weights]
        self.non_trainable_variables = [v.value for v in model.non_trainable_weights]
        self.variables = self.trainable_variables + self.non_trainable_variables
        self.resources = resources(model, self.serve.get_concrete_function())


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Loads the model as anybody would, and saves what serves it; says why, where it cannot."""
    try:
        write(spec)
    except Exception as error:  # whatever a layer raises while it is traced
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"keras": keras.__version__, "tensorflow": tf.__version__}


def write(spec: dict[str, Any]) -> None:
    """The SavedModel, with Keras' names for what serves it."""
    keras.layers.TimeDistributed.call = at_every_step
    model = keras.models.load_model(spec["model"], compile=False, safe_mode=True)
    exported = Exported(model, spec["names"])
    served = {"serving_default": exported.serve, "serve": exported.serve}
    tf.saved_model.save(exported, spec["folder"], signatures=served)


def at_every_step(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """What TimeDistributed means, by folding time into the batch.

    Where a traced function does not know the number of steps, Keras 3.15.1 takes the size of the
    batch for it (time_distributed.py takes the shape before it swaps the axes).
    """

    def fold(array: Any) -> Any:
        return tf.reshape(array, tf.concat([[-1], tf.shape(array)[2:]], 0))

    options = {"training": training} if layer.layer._call_has_training_arg else {}
    if layer.layer._call_has_mask_arg and mask is not None:
        options["mask"] = fold(mask)
    folded = tf.ensure_shape(fold(inputs), [None, *inputs.shape[2:]])
    outputs = layer.layer.call(folded, **options)
    shape = tf.concat([tf.shape(inputs)[:2], tf.shape(outputs)[1:]], 0)
    unfolded = tf.reshape(outputs, shape)
    return tf.ensure_shape(unfolded, [*inputs.shape[:2], *outputs.shape[1:]])


def by_name(model: Any, names: dict[str, list[str]]) -> dict[str, Any]:
    """Each variable under the name of every layer that holds it."""
    found = {}
    for layer in model.layers:
        held = layer.trainable_weights + layer.non_trainable_weights
        for name, variable in zip(names.get(layer.name, []), held, strict=True):
            found[name] = variable.value
    return found


def signature(model: Any) -> Any:
    """The inputs in the structure in which the model takes them, dynamic where it lets them be."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:  # a Sequential
        (structure,) = model.inputs
    return keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name), structure
    )


def resources(model: Any, function: Any) -> list[Any]:
    """What the function uses beside the weights: states of random generators, lookup tables."""
    weights = {id(v) for v in model.weights}
    used = {id(v) for v in function.variables}
    states = [v.value for v in model.variables if id(v) not in weights and id(v.value) in used]
    layers = [getattr(layer, "_lookup_layer", layer) for layer in model._flatten_layers()]
    return states + [layer.lookup_table for layer in layers if hasattr(layer, "lookup_table")]


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
