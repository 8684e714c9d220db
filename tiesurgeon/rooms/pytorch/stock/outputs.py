"""Calls a model on arrays, or on inputs that are found by trying, and writes what it gives."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from .example_inputs import NoInputs, inputs_for, one_line
from .opening import Opened, flat, open_model, trust
from .untrusted import Untrusted


def main(order: dict[str, Any]) -> dict[str, Any]:
    """Writes outputs and inputs in order, and says their names; see `running.py` for its form."""
    trust(order)
    try:
        model = open_model(order["path"], order["format"], order["trusted"])
    except Untrusted as needed:
        return {"untrusted": str(needed)}
    except Exception as error:  # whatever its framework or its own code says
        return {"unopened": one_line(error)}
    try:
        args, kwargs, words = _inputs(model, order)
        torch.manual_seed(0)  # should the model draw numbers
        with torch.no_grad():
            found = model.module(*args, **kwargs)
    except NoInputs as reason:
        return {"no_inputs": str(reason)}
    except Exception as error:
        return {"failed": one_line(error)}
    outputs = list(_named(found))
    np.savez(order["outputs"], *(_array(y) for _, y in outputs))
    given = {**dict(zip(_positions(model, len(args)), args, strict=True)), **kwargs}
    tensors = {name: x for name, x in given.items() if isinstance(x, torch.Tensor)}
    np.savez(order["used"], *(_array(x) for x in tensors.values()))
    return {
        "outputs": [name for name, _ in outputs],
        "inputs": list(tensors),
        "words": words,
        "missing": model.missing,
    }


def _inputs(model: Opened, order: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    if order["names"] is None:
        found = inputs_for(model, None)
        return found.args, found.kwargs, found.words
    with np.load(order["inputs"]) as arrays:
        held = [torch.from_numpy(arrays[key]) for key in arrays.files]
    tensors = {
        name: _as_taken(model, tensor, name in order["ids"])
        for name, tensor in zip(order["names"], held, strict=True)
    }
    if set(tensors) <= set(_arguments(model)):
        return (), tensors, ""
    return tuple(tensors.values()), {}, ""


def _as_taken(model: Opened, tensor: torch.Tensor, is_ids: bool) -> torch.Tensor:
    """Keras takes ids as floats too, nn.Embedding does not; floats are those of the model."""
    if model.program is not None or not tensor.is_floating_point():
        return tensor
    if is_ids and model.format != "torch":  # which takes what Keras takes
        return tensor.long()
    dtypes = (p.dtype for p in model.module.parameters() if p.is_floating_point())
    return tensor.to(next(dtypes, torch.float32))


def _arguments(model: Opened) -> list[str]:
    """Names by which `forward` can be given its arguments."""
    if isinstance(model.module, torch.jit.ScriptModule):
        return [argument.name for argument in model.module.forward.schema.arguments][1:]
    if model.program is not None:
        return list((model.program.example_inputs or ((), {}))[1])
    return [
        name
        for name, one in inspect.signature(model.module.forward).parameters.items()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ]


def _positions(model: Opened, count: int) -> list[str]:
    """Names for arguments that were given by position."""
    known = _arguments(model)[:count] if model.program is None else []
    return known if len(known) == count else [f"input_{number}" for number in range(count)]


def _named(outputs: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors with the keys under which they are returned, "" if they have none.

    A dict that is no class of its own is in the order of its keys, as in Keras.
    """
    if not isinstance(outputs, Mapping):
        yield from (("", tensor) for tensor in flat(outputs))
        return
    for key in sorted(outputs) if type(outputs) is dict else outputs:
        tensors = list(flat(outputs[key]))
        for number, tensor in enumerate(tensors):
            yield (str(key) if len(tensors) == 1 else f"{key}.{number}"), tensor


def _array(tensor: torch.Tensor) -> Any:
    """On the CPU, in a dtype that numpy has."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    known = tensor.dtype in (torch.float64, torch.float32, torch.float16)
    return (tensor.float() if tensor.is_floating_point() and not known else tensor).numpy()
