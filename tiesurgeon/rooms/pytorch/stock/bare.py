"""The proof of weights without a model: they load, and what is tied is one matrix.

There is nothing to call or train: the user's class makes the tie. A stand-in of bare modules
that is tied as the class must be has to load the file with nothing missing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from . import hand_tied
from .example_inputs import one_line
from .opening import Opened, trust
from .optimizers import refuse_misfit
from .untrusted import Untrusted


class Failed(Exception):
    """What was written is not what it must be."""


def main(order: dict[str, Any]) -> dict[str, Any]:
    """Loads the file in its own way and pokes what is tied; see `run.py` for the order."""
    trust(order)
    written = order["written"]
    try:
        if written["format"] == "safetensors":
            return _judge_safetensors(order, written["path"])
        return _judge_pickle(order, written["path"])
    except Untrusted as needed:
        reason = f"opening it needs {needed}, which is not PyTorch's own; give --trust-code"
        return {"unopened": reason}
    except Failed as failure:
        return {"failed": str(failure)}
    except Exception as error:
        return {"failed": f"it cannot be loaded ({one_line(error)})"}


def _judge_safetensors(order: dict[str, Any], path: str) -> dict[str, Any]:
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        recorded = file.metadata() or {}
    tensors = load_file(path)
    for one, other, _ in order["ties"]:
        source, target = (one, other) if one in tensors else (other, one)  # either may be kept
        if source not in tensors:
            raise Failed(f"{one} is not in it")
        if target in tensors:
            raise Failed(f"{target} is still in it, a second copy of {source}")
        if recorded.get(target) != source:
            raise Failed(f"its metadata does not say that {target} is {source}")
    if any(one not in tensors or other not in tensors for one, other in order["apart"]):
        raise Failed("a name that was untied is not in it")
    _load_into_a_class(order, path, tensors)
    return {"poke": True if order["ties"] or order["apart"] else None, "words": []}


def _load_into_a_class(order: dict[str, Any], path: str, tensors: Mapping[str, Any]) -> None:
    """A class that makes the ties loads it strictly with safetensors' own function."""
    from safetensors.torch import load_model

    ties = [(one, other) for one, other, _ in order["ties"]]
    held = {
        name: tensors.get(one, tensors.get(other)) for one, other in ties for name in (one, other)
    }
    model = _stand_in({**tensors, **held})
    for one, other in ties:
        hand_tied.tie(model, one, other, None)
    missing, unexpected = load_model(model.module, path, strict=False)
    if missing or unexpected:
        raise Failed(f"a class that makes the tie does not load it: {[*missing, *unexpected][0]}")


def _stand_in(tensors: Mapping[str, torch.Tensor]) -> Opened:
    """Bare modules that hold parameters of these names and shapes."""
    root = nn.Module()
    for name, tensor in tensors.items():
        owner = root
        *path, leaf = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]
        owner.register_parameter(leaf, nn.Parameter(torch.empty_like(tensor), requires_grad=False))
    return Opened(root, "safetensors")


def _judge_pickle(order: dict[str, Any], path: str) -> dict[str, Any]:
    content = _load(path)
    tensors = dict(_named(content))
    checked: bool | None = None
    for source, target, perm in order["ties"]:
        one, other = _places(tensors, source, target)
        seen = one if perm is None else one.permute(perm)
        if seen.shape != other.shape or not _moves_with(one, seen, other):
            raise Failed(f"a change of {source} does not show in {target}: they are two copies")
        checked = True
    for first, second in order["apart"]:
        one, other = _places(tensors, first, second)
        before = other.clone()
        with torch.no_grad():
            one.zero_().add_(7)
        if not torch.equal(other, before):
            raise Failed(f"{first} and {second} are still one: it is not untied")
        checked = True
    words = refuse_misfit(content, tensors, [target for _, target, _ in order["ties"]])
    return {"poke": checked, "words": words}


def _load(path: str) -> Any:
    """As people load weights, if it can be done so; else with PyTorch's own classes."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a module, a class of its own, or damage: the next attempt tells
        return torch.load(path, map_location="cpu", weights_only=False)


def _named(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor by the names of the keys and modules that lead to it."""
    if isinstance(content, torch.Tensor):
        yield path, content
    elif isinstance(content, nn.Module):
        for name, tensor in Opened(content, "").tensors().items():
            yield _below(path, name), tensor
    elif isinstance(content, Mapping) and depth < 32:
        for key, item in content.items():
            yield from _named(item, _below(path, str(key)), depth + 1)
    elif isinstance(content, (list, tuple)) and depth < 32:
        for index, item in enumerate(content):
            yield from _named(item, _below(path, str(index)), depth + 1)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _places(tensors: Mapping[str, Any], one: str, other: str) -> tuple[Any, Any]:
    """Two tensors of the same set of weights, which may lie deeper in the file."""
    for name in sorted(tensors, key=len):
        if name == one or name.endswith(f".{one}"):
            beside = name[: len(name) - len(one)] + other
            if beside in tensors:
                return tensors[name], tensors[beside]
    raise Failed(f"{one} and {other} are not in it")


def _moves_with(one: torch.Tensor, seen: torch.Tensor, other: torch.Tensor) -> bool:
    """True if a change of one row shows in the other tensor."""
    if not torch.equal(seen, other):
        return False
    row = one[0] if one.ndim else one
    with torch.no_grad():
        row.copy_(row.clone().fill_(3) if bool((row != 3).any()) else row.clone().fill_(5))
    return bool(torch.equal(seen, other))
