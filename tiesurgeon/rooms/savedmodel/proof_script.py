"""Runs in a process of its own, with TensorFlow and without tiesurgeon: what a SavedModel does.

Reads a JSON spec (see `run.py`), prints one JSON document. It must stay one file that
imports nothing from the package: what it proves is that a stranger can load the result.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import numpy as np
import tensorflow as tf

# Operations with a state that reach no further than the model: variables, tables, control flow.
HARMLESS = frozenset(
    """
    Placeholder NoOp Assert While If Case StatefulPartitionedCall IteratorGetNext
    VarHandleOp ReadVariableOp VarIsInitializedOp DisableCopyOnRead ResourceGather
    AssignVariableOp AssignAddVariableOp AssignSubVariableOp
    HashTableV2 MutableHashTableV2 InitializeTableV2 InitializeTableFromTextFileV2
    LookupTableFindV2 LookupTableSizeV2 LookupTableImportV2 LookupTableInsertV2
    LookupTableExportV2
    RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal
    StatefulUniform StatefulStandardNormalV2 RngReadAndSkip RngSkip
    CudnnRNN CudnnRNNV2 CudnnRNNV3 CudnnRNNBackprop CudnnRNNBackpropV2 CudnnRNNBackpropV3
    """.split()
)
# Operations that reach further though TensorFlow counts them as without a state.
REACHING = ("ReadFile", "MatchingFiles", "PyFuncStateless", "Debug")


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a SavedModel, or all checks of one that was written from a Keras file."""
    folder, inputs = Path(spec["folder"]), dict(np.load(spec["inputs"]))
    if reaching := sorted(reaching_out(folder)):
        return {"refused": reaching}
    loaded = tf.saved_model.load(str(folder))
    if "model" in spec:
        return compare(Pair(loaded, spec, inputs), spec["tied"])
    np.savez(spec["outputs"], *(y.numpy() for y in serve(loaded, spec["structure"], inputs)))
    return {}


def reaching_out(folder: Path) -> set[str]:
    """Operations of the model's functions that could reach files, Python or the network.

    Those that save and restore a checkpoint are not among its functions.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.python.framework import op_def_registry

    found = set()
    for graph in SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs:
        library = {one.signature.name: one for one in graph.graph_def.library.function}
        waiting = list(graph.object_graph_def.concrete_functions)
        seen = set(waiting)
        for name in waiting:  # which grows
            for node in library[name].node_def:
                definition = op_def_registry.get(node.op)
                is_plain = definition is not None and not definition.is_stateful
                if node.op.startswith(REACHING) or not (is_plain or node.op in HARMLESS):
                    found.add(node.op)
                new = [function for function in called(node) if function not in seen]
                seen.update(new)
                waiting += new
    return found


def called(node: Any) -> Iterator[str]:
    """Names of the functions that a node calls."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def serve(loaded: Any, structure: Any, inputs: dict[str, Any]) -> list[Any]:
    """Outputs as a flat list, dropout off.

    Keras 3 and tiesurgeon call it `serve`; what Keras 2 saved is itself called.
    """
    given = packed(structure, inputs)
    if hasattr(loaded, "serve"):
        return list(tf.nest.flatten(loaded.serve(given)))
    if isinstance(given, list) and len(given) == 1:
        (given,) = given
    return list(tf.nest.flatten(loaded(given, training=False)))


def packed(structure: Any, inputs: dict[str, Any]) -> Any:
    """The inputs in the structure of their names."""
    if isinstance(structure, dict):
        return {key: packed(item, inputs) for key, item in structure.items()}
    if isinstance(structure, list):
        return [packed(item, inputs) for item in structure]
    return tf.constant(inputs[structure])


class Pair:
    """A SavedModel beside the Keras file that it was made of, which is proved already."""

    def __init__(self, loaded: Any, spec: dict[str, Any], inputs: dict[str, Any]) -> None:
        import keras

        self.loaded, self.structure, self.inputs = loaded, spec["structure"], inputs
        self.flatten = keras.tree.flatten
        self.model = keras.models.load_model(spec["model"], compile=False, safe_mode=True)
        self.twins: dict[str, Any] = {}
        for layer in self.model.layers:
            held = layer.trainable_weights + layer.non_trainable_weights
            names = spec["names"].get(layer.name, [])
            self.twins.update(zip(names, (v.value for v in held), strict=True))

    def ours(self) -> list[Any]:
        """Outputs of the SavedModel."""
        return serve(self.loaded, self.structure, self.inputs)

    def theirs(self) -> list[Any]:
        """Outputs of the Keras file."""
        given = packed(self.structure, self.inputs)
        return list(self.flatten(self.model(given, training=False)))

    def agree(self) -> bool:
        """True if both give the same, up to rounding."""
        return difference(self.ours(), self.theirs()) <= 1e-4 * scale(self.theirs())


def compare(pair: Pair, tied: list[str]) -> dict[str, Any]:
    """All checks. Steps come last, as they leave both models trained."""
    result: dict[str, Any] = {
        "difference": difference(pair.ours(), pair.theirs()),
        "scale": scale(pair.theirs()),
        "listed": is_listed_once(pair),
    }
    result["poke"] = all_of([poke(pair, name) for name in tied])
    result["step"] = all_of([step(pair, name) for name in tied])
    result["reload"] = survives(pair)
    return result


def is_listed_once(pair: Pair) -> bool:
    """All variables are listed, the trainable ones as such, and none of them twice."""
    loaded, model = pair.loaded, pair.model
    lists = (
        (loaded.variables, model.weights),
        (loaded.trainable_variables, model.trainable_weights),
        (loaded.non_trainable_variables, model.non_trainable_weights),
    )
    return all(len({id(v) for v in ours}) == len(ours) == len(theirs) for ours, theirs in lists)


def poke(pair: Pair, name: str) -> bool:
    """A change of the one variable does what it does in Keras, where it shows at every use."""
    variables = pair.loaded.weights[name], pair.twins[name]
    old, before = variables[0].numpy(), pair.ours()
    noise = np.random.default_rng(2).standard_normal(old.shape).astype(old.dtype)
    for variable in variables:
        variable.assign(old + noise)
    moved = pair.agree() and difference(pair.ours(), before) > 0
    for variable in variables:
        variable.assign(old)
    return moved


def step(pair: Pair, name: str) -> bool | None:
    """One step down the gradient, which is that of all uses, as Keras has it.

    None if it is frozen, or no gradient reaches it on these inputs.
    """
    ours, theirs = pair.loaded.weights[name], pair.twins[name]
    if not any(variable is ours for variable in pair.loaded.trainable_variables):
        return None
    gradient, expected = slope(pair.ours, ours), slope(pair.theirs, theirs)
    if gradient is None or expected is None:
        return None if gradient is expected else False
    size = float(np.max(np.abs(expected)))
    if size == 0.0:
        return None
    close = bool(np.max(np.abs(gradient - expected)) <= 1e-4 * size)
    ours.assign_sub(0.01 * gradient / size)
    theirs.assign_sub(0.01 * expected / size)
    return close and pair.agree()


def slope(outputs: Any, variable: Any) -> Any:
    """d(sum of weighted outputs)/d(variable), dense."""
    rng = np.random.default_rng(1)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        loss = sum(
            tf.reduce_sum(tf.cast(y, tf.float32) * rng.standard_normal(y.shape).astype("float32"))
            for y in outputs()
        )
    found = tape.gradient(loss, variable)
    return None if found is None else np.asarray(tf.convert_to_tensor(found))


def survives(pair: Pair) -> bool:
    """Saved again by TensorFlow after the steps, and loaded: the same outputs and variables."""
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(pair.loaded, folder)
        again = tf.saved_model.load(folder)
        outputs = serve(again, pair.structure, pair.inputs)
    close = difference(outputs, pair.ours()) <= 1e-5 * scale(outputs)
    return close and len(again.variables) == len(pair.loaded.variables)


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest absolute difference; infinite where shapes differ."""
    if [a.shape for a in one] != [b.shape for b in other]:
        return float("inf")
    return max((gap(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)))


def gap(one: Any, other: Any) -> float:
    """Equal infinities, and NaN in the same places, are no difference."""
    same = (one == other) | ((one != one) & (other != other))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(same, 0.0, np.abs(one - other)), initial=0.0))


def scale(outputs: list[Any]) -> float:
    """The largest number among the outputs, at least 1: what tolerances are relative to."""
    arrays = [np.asarray(y, "float64") for y in outputs]
    return max([1.0, *(float(np.max(np.abs(y[np.isfinite(y)]), initial=0.0)) for y in arrays)])


def all_of(found: list[bool | None]) -> bool | None:
    """False if one is, else None if one could not be checked."""
    if False in found:
        return False
    return None if None in found or not found else True


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
