"""Runs in a process of its own, with Keras and without tiesurgeon: the proof of a tie.

Reads a JSON spec (see `run.py`), prints one JSON document. It must stay one file that
imports nothing from the package: what it proves is that a stranger can load the result.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import keras
import numpy as np


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """All checks that the spec asks for."""
    inputs = dict(np.load(spec["inputs"]))
    if "outputs_of" in spec:
        np.savez(spec["outputs"], *run_original(spec["outputs_of"], inputs, spec["written_by"]))
        return {"keras": keras.__version__}
    result: dict[str, Any] = {}
    tied = load(spec["model"])
    result["keras"] = keras.__version__
    result["values"] = wrong_values(tied, spec.get("weights"))
    outputs = run(tied, inputs)
    result["scale"] = scale(outputs)
    if any(spec.get(key) for key in ("original", "before", "original_error")):
        before = outputs_before(spec, inputs, result)
        result["from_original"] = difference(before, outputs)
        result["agreement"] = agreement(before, outputs)
    if spec.get("twin"):
        twin = load(spec["twin"])
        result["from_twin"] = difference(run(twin, inputs), outputs)
        checks = [check_group(tied, twin, group, inputs) for group in spec["groups"]]
        # Steps come last: they leave the model trained, and the twin is not.
        steps = [step_moves_it(tied, of_group(tied, group), inputs) for group in spec["groups"]]
        for name in ("gradient", "poke"):
            result[name] = all_of([check[name] for check in checks])
        result["step"] = all_of(steps)
        result["reload"] = survives(tied, spec, inputs)
    return result


def load(path: str) -> Any:
    """The model, as anybody would load it."""
    return keras.models.load_model(path, compile=False, safe_mode=True)


def run(model: Any, inputs: dict[str, Any]) -> list[Any]:
    """Outputs as a flat list of arrays, dropout off."""
    return [to_numpy(y) for y in keras.tree.flatten(model(packed(model, inputs), training=False))]


def packed(model: Any, inputs: dict[str, Any]) -> Any:
    """The inputs in the structure the model takes them in."""
    given = [
        keras.ops.convert_to_tensor(inputs[tensor.name.split(":")[0]]) for tensor in model.inputs
    ]
    if hasattr(model, "_inputs_struct"):
        return keras.tree.pack_sequence_as(model._inputs_struct, given)
    return given[0] if len(given) == 1 else given


def outputs_before(spec: dict[str, Any], inputs: dict[str, Any], result: dict[str, Any]) -> Any:
    """What the file gave as it was; where nothing opens it, what its modern form gives."""
    if "before" in spec:  # another framework ran it
        return list(np.load(spec["before"]).values())
    try:
        if "original_error" in spec:
            raise RuntimeError(spec["original_error"])
        return run_original(spec["original"], inputs, spec["written_by"])
    except Exception as error:  # old or custom files
        result["original_error"] = " ".join(str(error).split())[:160]
        return run(load(spec["modern"]), inputs)


def run_original(path: str, inputs: dict[str, Any], written_by: str) -> list[Any]:
    """Outputs of the file as it was, by the Keras that wrote it.

    A file of "keras 2" goes to tf_keras where that is installed: stock Keras 3 may open it
    and mean something else. Where it is "keras 2 only", Keras 3 surely would.
    """
    if not written_by.startswith("keras 2"):
        return run(load(path), inputs)
    try:
        return run_in_keras_2(path, inputs)
    except Exception:
        if written_by == "keras 2 only":
            raise
        return run(load(path), inputs)


def run_in_keras_2(path: str, inputs: dict[str, Any]) -> list[Any]:
    """Outputs by tf_keras, the Keras 2 that is still maintained."""
    import tf_keras

    model = tf_keras.models.load_model(path, compile=False)
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    # Keras 2 may name a Sequential's input otherwise; one input is that one.
    given = [inputs[n] if n in inputs else next(iter(inputs.values())) for n in names]
    outputs = model(given[0] if len(given) == 1 else given, training=False)
    return [np.asarray(y) for y in keras.tree.flatten(outputs)]


def to_numpy(value: Any) -> Any:
    """A tensor or variable of any backend as an array."""
    return keras.ops.convert_to_numpy(value)


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest absolute difference; infinite where shapes differ."""
    if [a.shape for a in one] != [b.shape for b in other]:
        return float("inf")
    return max((gap(a, b) for a, b in zip(one, other, strict=True)), default=0.0)


def gap(one: Any, other: Any) -> float:
    """Equal infinities, and NaN in the same places, are no difference."""
    same = (one == other) | ((one != one) & (other != other))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(same, 0.0, np.abs(one - other)), initial=0.0))


def agreement(one: list[Any], other: list[Any]) -> float:
    """How often both rank the same entry of the last axis first, over all outputs."""
    same = [np.mean(np.argmax(a, -1) == np.argmax(b, -1)) for a, b in zip(one, other, strict=True)]
    return float(np.mean(same))


def scale(outputs: list[Any]) -> float:
    """The largest number among the outputs, at least 1: what tolerances are relative to."""
    return max([1.0, *(float(np.max(np.abs(y[np.isfinite(y)]), initial=0.0)) for y in outputs)])


def variable(model: Any, path: list[str], role: str) -> Any:
    """The variable `role` of the layer at `path`: names, through wrappers and nested models."""
    layer = model
    for name in path:
        if hasattr(layer, "get_layer"):
            layer = layer.get_layer(name)
        elif name.startswith("backward") and hasattr(layer, "backward_layer"):
            layer = layer.backward_layer
        else:
            layer = getattr(layer, "forward_layer", None) or getattr(layer, "layer", layer)
    holder = layer
    for part in ("", "cell"):
        holder = getattr(layer, part) if part else layer
        if hasattr(holder, role):
            break
    found = getattr(holder, "_kernel", None) if role == "kernel" else None
    found = getattr(holder, "_embeddings", None) if role == "embeddings" else found
    return getattr(holder, role) if found is None else found


def wrong_values(model: Any, weights: str | None) -> list[str]:
    """Names of variables whose numbers are not the ones that were meant."""
    if weights is None:
        return []
    meant = np.load(weights)
    wrong = []
    for key in meant.files:
        path, _, role = key.rpartition("|")
        actual = to_numpy(variable(model, path.split("|"), role))
        if not np.array_equal(actual, meant[key].reshape(actual.shape), equal_nan=True):
            wrong.append(key.replace("|", "/"))
    return wrong


def gradient(model: Any, inputs: dict[str, Any], variables: list[Any]) -> list[Any] | None:
    """d(sum of weighted outputs)/d(variables), dense; None without TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    given = packed(model, inputs)
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(model(given, training=False))
        loss = sum(tf.reduce_sum(tf.cast(y, tf.float32) * weights(y)) for y in outputs)
    found = tape.gradient(loss, [v.value for v in variables])
    return [None if g is None else np.asarray(tf.convert_to_tensor(g)) for g in found]


def weights(output: Any) -> Any:
    """Seeded weights for an output, so that its sum has a gradient worth looking at."""
    rng = np.random.default_rng(1)
    return rng.standard_normal(output.shape).astype("float32")


def all_of(found: list[bool | None]) -> bool | None:
    """False if one is, else None if one could not be checked."""
    if False in found:
        return False
    return None if None in found or not found else True


def of_group(model: Any, group: dict[str, Any]) -> Any:
    """The variable that a group became."""
    return variable(model, group["path"], group["role"])


def check_group(tied: Any, twin: Any, group: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """The one variable against its copies in the untied twin."""
    shared = of_group(tied, group)
    copies = [(of_group(twin, member), member["perm"]) for member in group["members"]]
    return {
        "gradient": same_gradient(tied, twin, shared, copies, inputs),
        "poke": both_ends_move(tied, twin, shared, copies, inputs),
    }


def same_gradient(
    tied: Any, twin: Any, shared: Any, copies: list[Any], inputs: dict[str, Any]
) -> bool | None:
    """The shared gradient is the sum of those of the copies."""
    if not shared.trainable:
        return None
    one = gradient(tied, inputs, [shared])
    each = gradient(twin, inputs, [copy for copy, _ in copies])
    if one is None or each is None:
        return None
    total = sum(
        oriented(g, perm) for g, (_, perm) in zip(each, copies, strict=True) if g is not None
    )
    size = max(1.0, float(np.max(np.abs(total))))
    return one[0] is not None and float(np.max(np.abs(one[0] - total))) <= 1e-4 * size


def oriented(array: Any, perm: list[int] | None) -> Any:
    """A copy's array in the shared variable's orientation: the inverse of `perm`."""
    return array if perm is None else np.transpose(array, np.argsort(perm))


def both_ends_move(
    tied: Any, twin: Any, shared: Any, copies: list[Any], inputs: dict[str, Any]
) -> bool:
    """One row poked here equals the same row poked in every copy, and not in some of them."""
    old = to_numpy(shared)
    noise = np.random.default_rng(2).standard_normal(old.shape).astype(old.dtype)
    saved = [to_numpy(copy) for copy, _ in copies]
    shared.assign(old + noise)
    moved = run(tied, inputs)
    tolerance = 1e-4 * scale(moved)
    apart = []
    for index in range(len(copies) + 1):
        for number, (copy, perm) in enumerate(copies):
            is_poked = index == len(copies) or number == index
            add = noise if perm is None else np.transpose(noise, perm)
            copy.assign(saved[number] + add if is_poked else saved[number])
        apart.append(difference(run(twin, inputs), moved))
    shared.assign(old)
    for (copy, _), value in zip(copies, saved, strict=True):
        copy.assign(value)
    return apart[-1] <= tolerance and all(other > apart[-1] for other in apart[:-1])


def step_moves_it(tied: Any, shared: Any, inputs: dict[str, Any]) -> bool | None:
    """One Adam step trains the one variable, which the model lists once."""
    if not shared.trainable:
        return None
    found = gradient(tied, inputs, [shared])
    if found is None or found[0] is None:
        return None
    size = float(np.max(np.abs(found[0])))
    if size == 0.0:  # a saturated output: nothing to learn from these inputs
        return None
    old = to_numpy(shared)
    optimizer = keras.optimizers.Adam(0.01)
    # Scaled, as Adam does not see gradients that vanish beside its epsilon.
    optimizer.apply([keras.ops.convert_to_tensor(found[0] / size)], [shared])
    listed = sum(1 for v in tied.trainable_variables if v is shared)
    moved = bool(np.any(to_numpy(shared) != old))
    return moved and listed == 1


def survives(tied: Any, spec: dict[str, Any], inputs: dict[str, Any]) -> bool | None:
    """Saved again by Keras after the step, and loaded: the same outputs, still one variable."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "again.keras"))
        tied.save(path)
        again = load(path)
        close = difference(run(tied, inputs), run(again, inputs)) <= 1e-5 * scale(run(tied, inputs))
        same_count = len(again.weights) == len(tied.weights)
    return close and same_count


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
