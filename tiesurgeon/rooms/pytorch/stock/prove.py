"""The proof of a model that runs: opened, called, poked and trained beside the original.

The original is tied by hand in Python, so both must give the same outputs, react alike to a
poke, and hold the same numbers after five Adam steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import hand_tied
from .example_inputs import Inputs, NoInputs, inputs_for, one_line
from .logits import give_logits_only
from .opening import Opened, open_model, trust
from .training import NotTrained, apart, difference, train, widened
from .untrusted import Untrusted

_SAME = 1e-6


class Failed(Exception):
    """What was written is not what it must be."""


class Unproved(Exception):
    """There is nothing to compare it with."""


def main(order: dict[str, Any]) -> dict[str, Any]:
    """Measures what the order asks for; see `run.py` for its form."""
    trust(order)
    try:
        original = _open(order, "original")
    except Exception as error:  # whatever its framework or its own code says
        return {"unopened": _why(order, "original", error)}
    try:
        written = _open(order, "written")
    except Exception as error:
        return {"failed": f"it cannot be opened ({_why(order, 'written', error)})"}
    try:
        return _Proof(order, original, written).measure()
    except Unproved as reason:
        return {"unopened": str(reason)}
    except Failed as failure:
        return {"failed": str(failure)}
    except Exception as error:
        return {"failed": f"it does not run as the original does ({one_line(error)})"}


def _open(order: dict[str, Any], which: str) -> Opened:
    return open_model(order[which]["path"], order[which]["format"], order["trusted"])


def _why(order: dict[str, Any], which: str, error: Exception) -> str:
    if isinstance(error, Untrusted):
        return f"opening it needs {error}, which is not PyTorch's own; give --trust-code"
    return one_line(error)


class _Proof:
    """One original, what was written of it, and what was found so far."""

    def __init__(self, order: dict[str, Any], original: Opened, written: Opened) -> None:
        self.order, self.original, self.written = order, original, written
        self.found: dict[str, Any] = {"words": []}
        name = original.name
        self.ties = [(name(tie[0]), name(tie[1]), tie[2]) for tie in order["ties"]]
        self.targets = {target for _, target, _ in self.ties}

    def measure(self) -> dict[str, Any]:
        """All checks, those that change the models last."""
        if lacking := sorted(set(self.written.missing) - set(self.original.missing)):
            raise Failed(f"{lacking[0]} is missing when it is loaded")
        self._refuse_unknown()
        self._refuse_two()
        inputs = self._inputs()
        before = None if inputs is None else self._before(inputs)
        inputs = None if before is None else inputs
        self._tie_by_hand(self.original, self.written)
        if inputs is not None and before is not None:
            self._compare_outputs(inputs, before)
            if self.written.format != self.original.format:
                self._compare_other_sizes(inputs)
        if self.order["apart"]:
            self.found["poke"] = self._are_apart()
        elif self.ties:
            self.found["poke"] = self._move_together(inputs)
            if inputs is not None:
                self._train(inputs)
        return self.found

    def _refuse_unknown(self) -> None:
        """A program that was tied before has no second names; elsewhere all must be there."""
        known = self.original.tensors()
        dropped = self.targets if self.original.format == "torch-export" else set()
        for name in self.targets.union(source for source, _, _ in self.ties) - dropped:
            if name not in known:
                raise Unproved(f"the original, once opened, has no {name}")

    def _inputs(self) -> Inputs | None:
        try:
            inputs = inputs_for(self.original, self.order["example_inputs"])
        except NoInputs as reason:
            self.found["uncalled"] = f"{reason}; give --example-inputs F.npz"
            return None
        except Exception as error:
            self.found["uncalled_on_given"] = one_line(error)
            return None
        self.found["inputs"] = inputs.words
        if self.original.format == "huggingface" and self.written.format == "torch-export":
            give_logits_only(self.original, list(inputs.kwargs))
        return inputs

    def _refuse_two(self) -> None:
        """Identity: an untied copy, or two parameters on one storage, would train apart."""
        tensors = self.written.tensors()
        for source, target, _ in self.ties:
            if source not in tensors:
                raise Failed(f"{source} is not in it")
            dropped = self.written.format == "torch-export" and target not in tensors
            if not dropped and tensors.get(target) is not tensors[source]:
                raise Failed(f"{source} and {target} are two parameters: it is not tied")

    def _before(self, inputs: Inputs) -> list[torch.Tensor] | None:
        """What the original gives; None if that is never the same.

        A model that remembers earlier calls is opened afresh, so that from here on both have
        been called as often.
        """
        outputs = _outputs(self.original, inputs)
        if _gap(outputs, _outputs(self.original, inputs)) == 0:
            return outputs
        first, again = (_outputs(self._afresh("original", inputs), inputs) for _ in range(2))
        if _gap(first, again) != 0:
            self.found["uncalled"] = "its outputs differ from call to call"
            return None
        self.original = self._afresh("original", inputs)
        self.written = self._afresh("written", inputs)
        return first

    def _afresh(self, which: str, inputs: Inputs) -> Opened:
        model = _open(self.order, which)
        if model.format == "huggingface" and self.written.format == "torch-export":
            give_logits_only(model, list(inputs.kwargs))
        return model

    def _tie_by_hand(self, model: Opened, written: Opened) -> None:
        if self.order["values_changed"]:
            tensors = written.tensors()
            hand_tied.give(model, {source: tensors[source] for source, _, _ in self.ties})
        for source, target, perm in self.ties:
            if target in model.tensors():
                hand_tied.tie(model, source, target, perm)

    def _compare_outputs(self, inputs: Inputs, before: list[torch.Tensor]) -> None:
        expected, got = _outputs(self.original, inputs), _outputs(self.written, inputs)
        self.found["tolerance"] = _tolerance(expected)
        self.found["max_abs_diff"] = _gap(expected, got)
        self.found["from_original"] = _gap(before, got)
        self.found["agreement"] = _agreement(before, got)

    def _compare_other_sizes(self, inputs: Inputs) -> None:
        """A traced program may hold as a constant what varied in the module."""
        for axis, size in enumerate(("batch", "length")):
            longer = inputs.longer(axis)
            try:
                meant = _outputs(self.original, longer)
            except Exception:  # the model itself takes no other
                continue
            try:
                got = _outputs(self.written, longer)
            except Exception:  # refused by a guard: not a wrong result
                continue
            if not _gap(meant, got) <= _tolerance(meant):
                raise Failed(f"with another {size} its outputs differ by {_gap(meant, got):.3g}")

    def _are_apart(self) -> bool:
        """Other numbers in one of two untied matrices leave the other as it is."""
        tensors = self.written.tensors()
        for one, other in self.order["apart"]:
            moved, still = tensors[self.written.name(one)], tensors[self.written.name(other)]
            before = still.detach().clone()
            with _noise(moved):
                if not torch.equal(still, before):
                    return False
        return True

    def _move_together(self, inputs: Inputs | None) -> bool | None:
        """Other numbers in the one matrix change both uses, as they do in the hand-tied model."""
        if inputs is None and self.written.format == "torch-export":
            return None  # only a call shows what its graph does with the matrix
        for source, target, _ in self.ties:
            one, other = (model.tensors()[source] for model in (self.original, self.written))
            with _noise(one), _noise(other):
                seen = self.written.tensors().get(target)
                if seen is not None and not torch.equal(seen, other):
                    return False
                if inputs is not None:
                    meant, got = _outputs(self.original, inputs), _outputs(self.written, inputs)
                    if not _gap(meant, got) <= _tolerance(meant):
                        return False
        return True

    def _train(self, inputs: Inputs) -> None:
        try:
            started = {
                tie[0]: self.original.tensors()[tie[0]].detach().clone() for tie in self.ties
            }
            meant = train(self.original, inputs.pair)
        except Exception as error:
            reason = str(error) if isinstance(error, NotTrained) else one_line(error)
            self.found["untrained"] = reason
            return
        got = train(self.written, inputs.pair)
        self._refuse_two()  # training must not take them apart
        self.found["step_difference"] = apart(self._kept(meant), self._kept(got))
        if not self.found["step_difference"] <= _SAME:
            self._train_widely(inputs)
        still = [s for s, before in started.items() if torch.equal(before, meant[s])]
        if still:
            self.found["untrained"] = f"no gradient reached {still[0]}"

    def _train_widely(self, inputs: Inputs) -> None:
        """The same in float64: Adam makes much of rounding where a gradient is almost zero."""
        try:
            models = [self._afresh(which, inputs) for which in ("original", "written")]
            self._tie_by_hand(*models)
            trained = [train(model, widened(model, inputs.pair)) for model in models]
        except Exception:  # dtypes that are written into the model's code
            return
        self.found["step_difference"] = apart(*map(self._kept, trained))
        self.found["words"].append("trained in float64, as Adam made much of float32's rounding")

    def _kept(self, trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Without the second names, which the two models may or may not have."""
        return {
            name: value
            for name, value in trained.items()
            if name not in self.targets and ".parametrizations." not in name
        }


def _outputs(model: Opened, inputs: Inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return [y.detach().clone() for y in model.call(inputs.pair)]


@contextmanager
def _noise(tensor: torch.Tensor) -> Iterator[None]:
    """Adds the same seeded numbers to any tensor of that shape, and takes them back."""
    saved = tensor.detach().clone()
    wide = torch.complex64 if tensor.is_complex() else torch.float32
    noise = torch.randn(saved.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tensor.copy_(saved.to(wide) + noise)
    try:
        yield
    finally:
        with torch.no_grad():
            tensor.copy_(saved)


def _gap(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    if len(one) != len(other):
        return float("inf")
    return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)


def _scale(outputs: list[torch.Tensor]) -> float:
    """The largest number among the outputs, at least 1: what tolerances are relative to."""
    finite = [y[y.isfinite()].abs() for y in outputs if y.is_floating_point()]
    return max([1.0, *(float(y.max()) for y in finite if y.numel())])


def _tolerance(outputs: list[torch.Tensor]) -> float:
    """What the order of sums may make of outputs of that size and dtype."""
    steps = [torch.finfo(y.dtype).eps for y in outputs if y.is_floating_point()]
    return max(1e-5, 8 * max(steps, default=0.0)) * _scale(outputs)


def _agreement(one: list[torch.Tensor], other: list[torch.Tensor]) -> float | None:
    """How often both rank the same entry of the last axis first, over all outputs."""
    same = [
        (a.argmax(-1) == b.argmax(-1)).double().mean()
        for a, b in zip(one, other, strict=False)
        if a.is_floating_point() and a.ndim and a.shape == b.shape and a.numel()
    ]
    return float(sum(same) / len(same)) if same else None
