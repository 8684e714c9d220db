"""Inputs on which a model can be called: given, carried by the file, or guessed and tried."""

import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .opening import Opened

BATCH, TIME = 2, 5
# Sides of images: the smallest that some networks take, then those they are often made for.
_SIDES = (8, 28, 32, 64, 96, 224)
_MOST_TRIES = 64
_MOST_INPUTS = 4


@dataclass
class Inputs:
    """Positional and named arguments; `words` say what they are and where they are from."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    words: str

    @property
    def pair(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """As a call takes them."""
        return self.args, self.kwargs

    def longer(self, axis: int) -> "Inputs":
        """The same with the first entry of that axis once more at its end, where there is one."""

        def longer(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or value.ndim <= axis:
                return value
            return torch.cat([value, value.narrow(axis, 0, 1)], axis)

        kwargs = {name: longer(value) for name, value in self.kwargs.items()}
        return Inputs(tuple(map(longer, self.args)), kwargs, self.words)


class NoInputs(Exception):
    """Nothing that was tried makes the model run; the message says what it said last."""


def inputs_for(model: Opened, given: str | None) -> Inputs:
    """The user's, or those of the file, or the first guess on which the model runs.

    Raises NoInputs; what the model raises on inputs that were given goes through.
    """
    if given is not None:
        found = _given(model, given)
        model.call(found.pair)
        return found
    failure, tried = "its inputs cannot be told from its layers", 0
    for candidate in itertools.islice(_candidates(model), _MOST_TRIES):
        tried += 1
        try:
            with torch.no_grad():
                outputs = model.call(candidate.pair)
        except Exception as error:  # the model's own code may raise anything
            failure = f"tried {tried}, the last said: {one_line(error)}"
            continue
        if outputs:
            return candidate
    raise NoInputs(failure)


def one_line(error: BaseException) -> str:
    """The kind of an error and the last thing it says: TorchScript shows its stack before."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines and "TorchScript" in str(error) else (lines or [""])[0]
    return f"{type(error).__name__}: {said}"[:200].removesuffix(": ")


def _given(model: Opened, path: str) -> Inputs:
    dtype = _dtype(model)
    with np.load(path) as arrays:
        tensors: dict[str, Any] = {n: torch.from_numpy(arrays[n]) for n in arrays.files}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float64:  # numpy's habit, seldom the model's
            tensors[name] = tensor.to(dtype)
        if tensor.ndim == 0 and isinstance(model.module, torch.jit.ScriptModule):
            tensors[name] = tensor.item()  # TorchScript's int, float or bool
    if set(tensors) <= set(_parameters(model)):
        return Inputs((), tensors, "the example inputs")
    return Inputs(tuple(tensors.values()), {}, "the example inputs, in their order")


def _parameters(model: Opened) -> list[str]:
    """Names of the arguments of `forward`."""
    if isinstance(model.module, torch.jit.ScriptModule):
        return [argument.name for argument in model.module.forward.schema.arguments][1:]
    if model.program is not None:
        return list((model.program.example_inputs or ((), {}))[1])
    try:
        return list(inspect.signature(model.module.forward).parameters)
    except (TypeError, ValueError):
        return []


def _required(model: Opened) -> int:
    """How many arguments `forward` cannot do without; 1 if it does not say."""
    if isinstance(model.module, torch.jit.ScriptModule):
        arguments = model.module.forward.schema.arguments[1:]
        return sum(1 for argument in arguments if not argument.has_default_value())
    try:
        parameters = inspect.signature(model.module.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [one for one in parameters if one.kind in positional]
    return sum(1 for one in named if one.default is one.empty) or 1


def _candidates(model: Opened) -> Iterator[Inputs]:
    if model.examples is not None:
        args, kwargs = model.examples
        yield Inputs(tuple(args), dict(kwargs), "the example inputs in the file")
    if model.program is not None:
        yield _of_program(model)
        return
    if model.format == "huggingface":
        yield from _of_transformers(model)
    count = _required(model)
    if count > _MOST_INPUTS:
        return
    kinds = list(_kinds(model))
    for kind, words in kinds:
        yield Inputs(tuple(kind() for _ in range(count)), {}, f"{words}, guessed")
    if count > 1:
        for mixed in itertools.product(kinds, repeat=count):
            words = " and ".join(words for _, words in mixed)
            yield Inputs(tuple(kind() for kind, _ in mixed), {}, f"{words}, guessed")


def _of_program(model: Opened) -> Inputs:
    """By the shapes with which a `.pt2` was exported."""
    ids, words = _ids(_vocabulary(model)), []
    wanted = set(model.program.graph_signature.user_inputs)
    args = []
    for node in model.program.graph.nodes:
        if node.op != "placeholder" or node.name not in wanted:
            continue
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            args.append(value)
            continue
        shape = tuple(dim if isinstance(dim, int) else dim.node.hint for dim in value.shape)
        words.append(f"{str(value.dtype).removeprefix('torch.')} {shape}")
        args.append(ids(shape, value.dtype) if _is_integer(value) else _floats(shape, value.dtype))
    return Inputs(tuple(args), {}, f"{' and '.join(words)} as exported")


def _of_transformers(model: Opened) -> Iterator[Inputs]:
    config = model.module.config
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    if model.module.main_input_name == "input_ids" and vocabulary:
        ids = _ids(vocabulary)
        named = {"input_ids": ids((BATCH, TIME), torch.int64)}
        if config.is_encoder_decoder:
            named["decoder_input_ids"] = ids((BATCH, TIME), torch.int64)
        yield Inputs((), named, f"token ids {(BATCH, TIME)} below {vocabulary}, guessed")
    yield Inputs((), dict(model.module.dummy_inputs), "transformers' dummy inputs")


def _kinds(model: Opened) -> Iterator[tuple[Any, str]]:
    """Ways to make one input, the likeliest first: what the first layers of the model take."""
    vocabulary, dtype = _vocabulary(model), _dtype(model)
    seen = set()
    for kind, shape in itertools.chain.from_iterable(map(_taken, _leaves(model))):
        if (kind, shape) in seen:
            continue
        seen.add((kind, shape))
        if kind == "ids":
            ids, words = _ids(vocabulary), f"token ids {shape} below {vocabulary}"
            yield (lambda ids=ids, shape=shape: ids(shape, torch.int64)), words
        else:
            words = f"random numbers {shape}"
            yield (lambda shape=shape: _floats(shape, dtype)), words


def _leaves(model: Opened) -> Iterator[torch.nn.Module]:
    """Modules that own weights, in order of registration."""
    for module in model.module.modules():
        if next(module.parameters(recurse=False), None) is not None:
            yield module


def _taken(module: torch.nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Shapes that a layer of this class takes."""
    op = getattr(module, "original_name", type(module).__name__)
    weight = getattr(module, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, torch.Tensor) else ()
    if op in ("Embedding", "EmbeddingBag"):
        yield "ids", (BATCH, TIME)
    elif op in ("LSTM", "GRU", "RNN"):
        yield "floats", (BATCH, TIME, module.weight_ih_l0.shape[1])
    elif op in ("LSTMCell", "GRUCell", "RNNCell"):
        yield "floats", (BATCH, module.weight_ih.shape[1])
    elif op == "MultiheadAttention":
        yield "floats", (BATCH, TIME, module.out_proj.weight.shape[0])
    elif op.startswith(("Conv", "LazyConv")) and len(shape) > 2:
        groups = getattr(module, "groups", 1)
        channels = shape[0] if "Transpose" in op else shape[1] * groups
        for side in _SIDES:
            yield "floats", (BATCH, channels, *(side,) * (len(shape) - 2))
    elif len(shape) == 2:
        yield "floats", (BATCH, shape[1])
        yield "floats", (BATCH, TIME, shape[1])
    elif len(shape) == 1:
        yield "floats", (BATCH, shape[0])
        yield "floats", (BATCH, TIME, shape[0])


def _vocabulary(model: Opened) -> int:
    """Ids below it are in every embedding table of the model."""
    rows = [
        module.weight.shape[0]
        for module in model.module.modules()
        if getattr(module, "original_name", type(module).__name__).startswith("Embedding")
        and isinstance(getattr(module, "weight", None), torch.Tensor)
    ]
    if model.program is not None:
        tensors = model.tensors()
        signature = model.program.graph_signature.inputs_to_parameters
        for node in model.program.graph.nodes:
            if node.op == "call_function" and "embedding" in str(node.target):
                table = tensors.get(signature.get(getattr(node.args[0], "name", ""), ""))
                rows += [] if table is None else [table.shape[0]]
    return min(rows, default=2)


def _ids(vocabulary: int) -> Any:
    generator = np.random.default_rng(0)

    def ids(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(generator.integers(0, vocabulary, shape)).to(dtype)

    return ids


def _floats(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape)).to(dtype)


def _is_integer(value: torch.Tensor) -> bool:
    return not (value.is_floating_point() or value.is_complex())


def _dtype(model: Opened) -> torch.dtype:
    """Of the model's first floating parameter."""
    dtypes = (p.dtype for p in model.module.parameters() if p.is_floating_point())
    return next(dtypes, torch.float32)
