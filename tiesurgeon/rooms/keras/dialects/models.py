"""Models, and the layers and models within them."""

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from tiesurgeon.rooms.keras.dialects import keras1
from tiesurgeon.rooms.keras.dialects.catalogue import (
    LAYER_MODULE,
    LAYERS,
    MODELS,
    OPERATIONS,
    is_keras_module,
    words,
)
from tiesurgeon.rooms.keras.dialects.draft import Context, Draft
from tiesurgeon.rooms.keras.dialects.entries import (
    INNER_LAYERS,
    Entry,
    is_entry,
    is_functional,
    is_sequential,
    major_version,
    version_numbers,
)
from tiesurgeon.rooms.keras.dialects.inputs import build_shape, declared_input, implied_input
from tiesurgeon.rooms.keras.dialects.merges import begins_with_merge, without_first_merge
from tiesurgeon.rooms.keras.dialects.names import name_of, without_slashes
from tiesurgeon.rooms.keras.dialects.nodes import (
    NodeReader,
    is_reference,
    references,
    upgrade_call,
)
from tiesurgeon.rooms.keras.dialects.operations import LAYERS_OF_FUNCTIONS, upgrade_operation
from tiesurgeon.rooms.keras.dialects.parts import dtype_name, modernise_parts
from tiesurgeon.rooms.keras.dialects.plain import plain
from tiesurgeon.rooms.keras.dialects.rules import RULES, apply_rules, class_name_today

_MODEL_CLASSES = ("Functional", "Model", "Container", "Network")
# Layers of older Keras that 3.15 has no class for.
_GONE = words(
    """
    LocallyConnected1D LocallyConnected2D MaxoutDense Highway Merge DenseFeatures
    RandomFourierFeatures TensorFlowOpLayer TFOpLambda SlicingOpLambda ClassMethod InstanceMethod
    InstanceProperty AddLoss AddMetric
    """
)


@dataclass(frozen=True)
class Modernised:
    """A config in the Keras 3.15 dialect, and one line for each thing it cannot say."""

    config: Entry
    notes: tuple[str, ...]


def modernise(config: Mapping[str, Any], *, keras_version: str | None = None) -> Modernised:
    """Returns the config of a model, written by any Keras, in the dialect of Keras 3.15.

    Layer names, their order and the calls stay as they are. Custom layers pass through. A layer
    entry has a "dialect" where a value means something that Keras 3 cannot name. `config` is not
    changed. Raises ValueError (one line) when it is not the config of a model.
    """
    try:
        entry = plain(config)
        if not is_entry(entry):
            raise ValueError("not a Keras model config: no class_name and config (or Keras 0.x's)")
        stated = keras_version or entry.get("keras_version")
        context = Context(major_version(entry, stated), version_numbers(stated))
        if entry.get("backend") == "theano" and context.major < 3:
            context.note("model", "written with Theano, whose convolution kernels are flipped")
        result = _entry(entry, context)
        result.pop("name", None)
        return Modernised(result, tuple(context.notes))
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise ValueError(f"not a Keras model config: {what[:200]}") from error
    except RecursionError as error:
        raise ValueError("not a Keras model config: it is nested too deeply") from error


def _entry(entry: Entry, context: Context) -> Entry:
    """One layer or model, calls excepted."""
    if is_functional(entry):
        return _functional(entry, context)
    if begins_with_merge(entry):
        return _functional(without_first_merge(entry), context)
    if is_sequential(entry):
        return _sequential(entry, context)
    if _is_keras3_operation(entry, context):
        name = entry["class_name"]
        return _finished(entry, OPERATIONS[name], name, entry["config"], registered_name=name)
    if _is_builtin(entry):
        return _layer(entry, context)
    return _custom(entry, context)


def _finished(
    entry: Entry,
    module: str | None,
    class_name: str,
    config: Any,
    *,
    registered_name: str | None = None,
) -> Entry:
    finished = {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered_name,
    }
    # "shared_object_id" says that one layer stands in two places; "dialect" is ours.
    finished.update({key: entry[key] for key in ("shared_object_id", "dialect") if key in entry})
    return finished


def _is_builtin(entry: Entry) -> bool:
    name, module = class_name_today(entry["class_name"]), entry.get("module")
    known = name in LAYERS or name in RULES or name in keras1.CLASS_NAMES
    registered = entry.get("registered_name") or name
    return known and ">" not in registered and (module is None or is_keras_module(module))


def _is_keras3_operation(entry: Entry, context: Context) -> bool:
    # keras.ops.add and keras.layers.Add share a name, and .h5 holds no module; every layer
    # stores "trainable", no operation does.
    name, config, module = entry["class_name"], entry.get("config"), entry.get("module")
    if context.major < 3 or name not in OPERATIONS or not isinstance(config, dict):
        return False
    if module is not None:
        return isinstance(module, str) and module.startswith("keras.src.ops")
    return name not in LAYERS or "trainable" not in config


def _layer(entry: Entry, context: Context) -> Entry:
    return _finish_layer(entry, _draft(entry, context))


def _draft(entry: Entry, context: Context) -> Draft:
    """A built-in layer, rewritten."""
    config = dict(entry["config"])
    draft = Draft(class_name_today(entry["class_name"]), config, context, LAYER_MODULE)
    if draft.class_name == "InputLayer":
        _input_layer(config)
    if context.major == 1:
        keras1.upgrade(draft)
    apply_rules(draft)
    modernise_parts(draft)
    config = draft.config
    for key in INNER_LAYERS:
        if is_entry(config.get(key)):
            config[key] = _entry(config[key], context)
    if isinstance(config.get("cells"), list):
        config["cells"] = [_entry(cell, context) for cell in config["cells"]]
    return draft


def _finish_layer(entry: Entry, draft: Draft) -> Entry:
    if draft.class_name not in LAYERS:
        draft.note(f"Keras 3.15 has no {draft.class_name}")
    finished = _finished(entry, draft.module, draft.class_name, draft.config)
    # Keras 2.12 wrote build_config too, in shapes that Keras 3 reads differently.
    if draft.context.major >= 3 and entry.get("build_config"):
        finished["build_config"] = entry["build_config"]
    if draft.dialect:
        finished["dialect"] = {**finished.get("dialect", {}), **draft.dialect}
    return finished


def _input_layer(config: dict[str, Any]) -> None:
    shape = config.pop("batch_input_shape", None)
    if shape is not None:
        config.setdefault("batch_shape", shape)
    if "input_dtype" in config:  # Keras 1
        config.setdefault("dtype", config["input_dtype"])
    for key in ("type_spec", "trainable"):
        config.pop(key, None)


def _custom(entry: Entry, context: Context) -> Entry:
    class_name = entry["class_name"]
    config = entry.get("config")
    if class_name in _GONE:
        name = config.get("name", class_name) if isinstance(config, dict) else class_name
        context.note(name, f"Keras 3.15 has no {class_name}")
    registered = entry.get("registered_name") or class_name
    finished = _finished(entry, entry.get("module"), class_name, config, registered_name=registered)
    if entry.get("build_config"):
        finished["build_config"] = entry["build_config"]
    return finished


def _sequential(entry: Entry, context: Context) -> Entry:
    stored = entry["config"]
    if isinstance(stored, list):  # Keras 1 to 2.1: no name of its own
        stored = {"layers": stored}
    raw = stored["layers"]
    without_slashes(raw, [], context)
    layers = [_entry(layer, context) for layer in raw]
    config: dict[str, Any] = {
        "name": stored.get("name") or entry.get("name") or "sequential",
        "trainable": stored.get("trainable", True),
    }
    if dtype_name(stored.get("dtype")):
        config["dtype"] = dtype_name(stored["dtype"])
    shape = stored.get("build_input_shape") or build_shape(entry)
    if raw and layers[0]["class_name"] != "InputLayer":
        layers = implied_input(raw[0], shape) + layers
    if layers and layers[0]["class_name"] == "InputLayer":
        shape = layers[0]["config"].get("batch_shape")
    config["layers"] = layers
    if shape is not None:
        config["build_input_shape"] = shape
    return _finished(entry, MODELS["Sequential"], "Sequential", config)


def _functional(entry: Entry, context: Context) -> Entry:
    stored = entry["config"]
    raw = stored["layers"]
    without_slashes(raw, [stored["input_layers"], stored["output_layers"]], context)
    reader = _node_reader(raw, stored)
    config = {key: value for key, value in stored.items() if key in ("name", "trainable")}
    config["layers"] = [_layer_with_calls(layer, reader, context) for layer in raw]
    for key in ("input_layers", "output_layers"):
        config[key] = _ends(stored[key], raw, reader, context)
    class_name, module = entry["class_name"], entry.get("module")
    if class_name in _MODEL_CLASSES and (module is None or is_keras_module(module)):
        return _finished(
            entry, MODELS["Functional"], "Functional", config, registered_name="Functional"
        )
    rest = {key: value for key, value in stored.items() if key not in config}
    registered = entry.get("registered_name") or class_name
    return _finished(entry, module, class_name, {**rest, **config}, registered_name=registered)


def _node_reader(raw: list[Entry], stored: dict[str, Any]) -> NodeReader:
    names = frozenset(name_of(layer) for layer in raw)
    mentioned: dict[str, set[int]] = {}
    for data in [layer.get("inbound_nodes") for layer in raw] + [stored["output_layers"]]:
        for name, index in references(data, names):
            mentioned.setdefault(name, set()).add(index)
    first_node = {}
    inputs = {}
    for layer in raw:
        name = name_of(layer)
        if is_functional(layer) or is_sequential(layer):
            calls = len(layer.get("inbound_nodes") or ())
            first_node[name] = _first_node(layer, calls, mentioned.get(name, set()))
        elif layer.get("class_name") == "InputLayer":
            shape, dtype = declared_input(layer)
            inputs[name] = (shape or [], dtype)
    return NodeReader(names, first_node, inputs)


def _first_node(model: Entry, calls: int, mentioned: set[int]) -> int:
    """Whether the calls of a nested model are counted from 0 or 1.

    Keras 1 and 2 gave a model with known inputs a node of its own, number 0, and so counted calls
    from 1; deferred Sequentials of TF 2.2 and later have none (`_should_skip_first_node`).
    """
    if 0 in mentioned:
        return 0
    if mentioned and max(mentioned) >= calls:
        return 1
    return 1 if is_functional(model) or declared_input(model)[0] is not None else 0


def _layer_with_calls(raw: Entry, reader: NodeReader, context: Context) -> Entry:
    nodes = raw.get("inbound_nodes") or []
    if context.major >= 3 and all(isinstance(node, dict) and "args" in node for node in nodes):
        done = _entry(raw, context)
        return {**done, "name": name_of(raw), "inbound_nodes": nodes}
    if raw["class_name"] in LAYERS_OF_FUNCTIONS:
        return _operation(raw, reader, context)
    extra: dict[str, Any] = {}
    if _is_builtin(raw) and not is_functional(raw) and not is_sequential(raw):
        draft = _draft(raw, context)
        done, extra = _finish_layer(raw, draft), draft.call
    else:
        done = _entry(raw, context)
    calls = [reader.read(node) for node in nodes]
    calls = [upgrade_call(done["class_name"], raw.get("config") or {}, call) for call in calls]
    for call in calls:
        call.kwargs.update(extra)
    done["name"] = name_of(raw)
    done["inbound_nodes"] = [call.to_node() for call in calls]
    return done


def _operation(raw: Entry, reader: NodeReader, context: Context) -> Entry:
    name = name_of(raw)
    calls = [reader.read(node, keep_structure=True) for node in raw.get("inbound_nodes") or ()]
    function = raw["config"].get("function")
    operation = upgrade_operation(function, calls) if isinstance(function, str) else None
    if operation is None:
        context.note(name, f"Keras 3 has no operation for this use of TensorFlow's {function}")
        done = _finished(raw, None, raw["class_name"], raw["config"])
        done["registered_name"] = raw["class_name"]
    else:
        calls = operation.calls
        config = {"name": name, **operation.config}
        class_name = operation.class_name
        done = _finished(raw, operation.module, class_name, config, registered_name=class_name)
    return {**done, "name": name, "inbound_nodes": [call.to_node() for call in calls]}


def _ends(stored: Any, raw: list[Entry], reader: NodeReader, context: Context) -> Any:
    """The inputs or outputs of a Functional model, in the structure Keras 3 gives back."""
    if context.major >= 3:
        return stored
    by_name = {name_of(layer): layer for layer in raw}
    # Keras 2 wrote one tensor as a list of one and gave it back bare.
    if isinstance(stored, list) and len(stored) == 1 and is_reference(stored[0]):
        stored = stored[0]
    return _end(stored, by_name, reader)


def _end(data: Any, by_name: dict[str, Entry], reader: NodeReader) -> Any:
    if is_reference(data):
        name, node, tensor = data[:3]
        if name not in by_name:
            raise ValueError(
                f"the model's inputs or outputs name {brief(name)}, which is no layer of it"
            )
        if name in reader.first_node:
            # Keras 3 too counts from 1 here for Functional models, and only for these.
            node = max(node - reader.first_node[name], 0) + int(is_functional(by_name[name]))
        elif name in reader.inputs:
            node = 0
        return [name, node, tensor]
    if isinstance(data, list):
        return [_end(item, by_name, reader) for item in data]
    if isinstance(data, dict):
        return {key: _end(item, by_name, reader) for key, item in data.items()}
    raise ValueError(
        f"the model's inputs or outputs hold {brief(data)}, expected [layer, node, tensor]"
    )
