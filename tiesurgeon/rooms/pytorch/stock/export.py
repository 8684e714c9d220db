"""Traces a model with `torch.export` and saves the program, with sizes that may vary."""

from collections.abc import Iterator
from typing import Any

import torch

from .example_inputs import Inputs, NoInputs, inputs_for, one_line
from .logits import give_logits_only
from .opening import Opened, open_model, trust
from .recurrent import any_length
from .untrusted import Untrusted


def main(order: dict[str, Any]) -> dict[str, Any]:
    """Exports one model; see `export.py` beside this folder for the order."""
    trust(order)
    try:
        model = open_model(order["path"], order["format"], order["trusted"])
    except Untrusted as needed:
        return {"refused": f"opening it needs {needed}, which is not PyTorch's own; --trust-code"}
    except Exception as error:  # whatever its framework or its own code says
        return {"refused": f"it cannot be opened ({one_line(error)})"}
    try:
        inputs = inputs_for(model, order["example_inputs"])
    except NoInputs as reason:
        return {"refused": f"no inputs to trace it with ({reason}); give --example-inputs F.npz"}
    except Exception as error:
        given = order["example_inputs"]
        return {"refused": f"the model does not run on {given} ({one_line(error)})"}
    if model.format == "huggingface":
        give_logits_only(model, list(inputs.kwargs))
    try:
        program, fixed_by = _exported(model, _with_two_rows(model, inputs))
    except Exception as error:
        return {"refused": _reason(error)}
    torch.export.save(program, order["output"])
    return {
        "inputs": inputs.words,
        "sizes": (sizes := list(_sizes(program))),
        "fixed": list(_fixed_sizes(model, inputs, sizes)),
        "fixed_by": fixed_by,
        "logits_only": model.format == "huggingface",
    }


def _with_two_rows(model: Opened, inputs: Inputs) -> Inputs:
    """A batch of one would be taken for a constant, so where the model can, it gets two."""
    tensors = [*inputs.args, *inputs.kwargs.values()]
    if any(not isinstance(x, torch.Tensor) or x.ndim == 0 or x.shape[0] != 1 for x in tensors):
        return inputs
    two = inputs.longer(0)
    try:
        with torch.no_grad():
            model.call(two.pair)
    except Exception:  # it takes one row only
        return inputs
    return two


def _exported(model: Opened, inputs: Inputs) -> tuple[Any, str | None]:
    """The program with as many free sizes as PyTorch can keep, and why not more if it failed."""
    reason = None
    for free in (_any_size, _any_batch):
        shapes = tuple(map(free, inputs.args)), {n: free(x) for n, x in inputs.kwargs.items()}
        try:
            with any_length():
                return _export(model, inputs, _named(*shapes)), reason
        except Exception as error:
            reason = one_line(error)
    return _export(model, inputs, None), reason


def _export(model: Opened, inputs: Inputs, shapes: Any) -> Any:
    return torch.export.export(
        model.module, inputs.args, inputs.kwargs, dynamic_shapes=shapes, strict=False
    )


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `torch.export` takes them: in order, or by name."""
    return kwargs if kwargs and not args else args


def _any_size(value: Any) -> Any:
    is_tensor = isinstance(value, torch.Tensor)
    return dict.fromkeys(range(value.ndim), torch.export.Dim.AUTO) if is_tensor else None


def _any_batch(value: Any) -> Any:
    is_tensor = isinstance(value, torch.Tensor) and value.ndim > 0
    return {0: torch.export.Dim.AUTO} if is_tensor else None


def _sizes(program: Any) -> Iterator[tuple[str, list[int | None]]]:
    """Each input's name and sizes; None for one that may vary."""
    wanted = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in wanted and isinstance(value, torch.Tensor):
            yield node.name, [_fixed(dim) for dim in value.shape]


def _fixed_sizes(model: Opened, inputs: Inputs, sizes: Any) -> Iterator[str]:
    """What the model lets vary and the program does not."""
    for axis, what in enumerate(("batch", "length")):
        if all(len(held) <= axis or held[axis] is None for _, held in sizes):
            continue
        try:
            with torch.no_grad():
                model.call(inputs.longer(axis).pair)
        except Exception:  # it is fixed in the model too
            continue
        yield what


def _fixed(size: Any) -> int | None:
    """The number, also where it began as a symbol."""
    if isinstance(size, int):
        return size
    found = size.node.maybe_as_int()
    return None if found is None else int(found)


# What the names of PyTorch's errors mean for the user.
_REASONS: dict[str, str] = {
    "GuardOnDataDependentSymNode": "its forward branches on the values of its inputs, which a "
    "program cannot; use torch.where or torch.cond there",
    "Unsupported": "its forward uses Python that cannot be traced",
    "UserError": "its forward cannot be traced",
    "ConstraintViolationError": "its sizes depend on each other",
    "TracingError": "its forward cannot be traced",
    "SpecViolationError": "its program would not be valid",
}


def _reason(error: Exception) -> str:
    known = _REASONS.get(type(error).__name__, "PyTorch cannot export it")
    return f"{known} ({one_line(error)})"
