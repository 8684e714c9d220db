"""The sample models in PyTorch: how they are trained, and how to use a saved one."""

from pathlib import Path
from typing import cast

import torch
from tasks import Array, Examples
from text import CHARACTERS, SEED
from torch.nn.functional import cross_entropy
from torch_lm import CharLM


def start() -> None:
    """Fix everything that could make two runs differ."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)


def torch_lm(train: Examples) -> CharLM:
    """The plain case: `embed.weight` and `decoder.weight` have one shape and nothing in common."""
    return _trained(CharLM(len(CHARACTERS), width=64), train)


def torch_lm_equal(train: Examples) -> CharLM:
    """Trained with one matrix, which then became two Parameters of equal numbers.

    That happens where weights are loaded into a class that does not tie them.
    """
    model = CharLM(len(CHARACTERS), width=64)
    torch.nn.init.normal_(model.embed.weight, std=0.1)  # as an output layer wants to start
    model.decoder.weight = model.embed.weight
    model = _trained(model, train)
    model.decoder.weight = torch.nn.Parameter(model.embed.weight.detach().clone())
    return model


def _trained(model: CharLM, train: Examples) -> CharLM:
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    tokens = torch.from_numpy(train.inputs["tokens"]).long()
    targets = torch.from_numpy(train.targets).long()
    for _ in range(10):
        order = torch.randperm(len(tokens))
        for first in range(0, len(order), 64):
            rows = order[first : first + 64]
            loss = cross_entropy(model(tokens[rows]).flatten(0, 1), targets[rows].flatten())
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            adam.step()
    return model.eval()


def save(model: CharLM, path: Path) -> None:
    """Write the whole module, class name included."""
    torch.save(model, path)


def load(path: Path) -> CharLM:
    """Read what `save` wrote; a pickle can run code, so only do this with files you trust."""
    return cast(CharLM, torch.load(path, weights_only=False))


def predict(model: CharLM, inputs: dict[str, Array]) -> Array:
    """Return probabilities, as the Keras models give them."""
    tokens = torch.from_numpy(inputs["tokens"]).long()
    with torch.inference_mode():
        return cast(Array, model(tokens).softmax(-1).numpy())


def parameters(model: CharLM) -> int:
    """Return the number of weights, each counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
