"""Whether the state of an optimizer in a checkpoint fits the parameters of a tied class."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_KINDS = {
    "exp_avg": torch.optim.Adam,
    "momentum_buffer": torch.optim.SGD,
    "square_avg": torch.optim.RMSprop,
}


def refuse_misfit(
    content: Any, tensors: Mapping[str, torch.Tensor], targets: list[str]
) -> list[str]:
    """Loads each optimizer state over parameters as the tied class lists them, and steps.

    Words for states that could not be tried. Raises ValueError where one does not fit.
    """
    words = []
    for state in _states(content):
        count = sum(len(group["params"]) for group in state["param_groups"])
        parameters = next(
            (found for found in _lists(content, tensors, targets) if len(found) == count), None
        )
        if parameters is None:
            words.append(
                f"an optimizer state was not tried: which parameters its {count} are is not in "
                "the file"
            )
            continue
        _load(state, parameters, words)
    return words


def _states(content: Any) -> Iterator[Mapping[str, Any]]:
    """Every dict that an optimizer's `state_dict()` gave."""
    if isinstance(content, Mapping):
        if isinstance(content.get("state"), Mapping) and content.get("param_groups"):
            yield content
            return
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for item in content:
            yield from _states(item)


def _lists(
    content: Any, tensors: Mapping[str, torch.Tensor], targets: list[str]
) -> Iterator[list[torch.Tensor]]:
    """Parameters in the order in which a class may list them: one list a set of weights."""
    for key, item in content.items() if isinstance(content, Mapping) else ():
        if isinstance(item, torch.nn.Module):
            yield list(item.parameters())
        elif isinstance(item, Mapping) and "param_groups" not in item:
            start = f"{key}."
            inside = {name: tensor for name, tensor in tensors.items() if name.startswith(start)}
            dropped = {*targets, *(start + target for target in targets)}
            yield [
                tensor
                for name, tensor in inside.items()
                if tensor.is_floating_point()
                and name not in dropped
                and name.rpartition(".")[2] not in _STATISTICS
            ]


def _load(state: Mapping[str, Any], parameters: list[torch.Tensor], words: list[str]) -> None:
    for index, held in state["state"].items():
        if index not in range(len(parameters)):
            raise ValueError(f"the optimizer has a state for parameter {index}, which is not there")
        for name, value in held.items():
            is_moment = isinstance(value, torch.Tensor) and value.ndim > 0
            if is_moment and value.shape != parameters[index].shape:
                raise ValueError(
                    f"the optimizer's {name} {index} is of shape {tuple(value.shape)}, and its "
                    f"parameter of {tuple(parameters[index].shape)}"
                )
    names = {name for held in state["state"].values() for name in held}
    kind = next((optimizer for name, optimizer in _KINDS.items() if name in names), None)
    if kind is None:
        words.append(
            "the state of the optimizer was checked by shapes only: the file does not say which "
            "optimizer it is of"
        )
        return
    own = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    for parameter in own:
        parameter.grad = torch.ones_like(parameter)
    left = iter(own)
    groups = [{"params": [next(left) for _ in group["params"]]} for group in state["param_groups"]]
    optimizer = kind(groups, lr=1e-3)
    optimizer.load_state_dict(dict(state))
    for group in optimizer.param_groups:  # as the CPU can
        group.update({flag: False for flag in ("capturable", "fused") if flag in group})
    optimizer.step()
