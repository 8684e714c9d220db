"""A Hugging Face folder open to edits: weights, config and index change together.

transformers ties by one flag, `tie_word_embeddings`: it makes one of every pair that the class
names, or of none. So what the edits mean together is settled when all of them are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tiesurgeon.edits import Perm
from tiesurgeon.errors import TieRefused
from tiesurgeon.find.values import bits_equal
from tiesurgeon.graph import Array, Storage, Variable, in_memory
from tiesurgeon.rooms.pytorch.huggingface import config as configs
from tiesurgeon.rooms.pytorch.huggingface.config import Config
from tiesurgeon.rooms.pytorch.huggingface.conventions import Pair, is_known
from tiesurgeon.rooms.pytorch.huggingface.folder import copy_others
from tiesurgeon.rooms.pytorch.huggingface.shards import Shards, other_weights
from tiesurgeon.rooms.pytorch.huggingface.weights import Weights, renamed, write_weights
from tiesurgeon.rooms.pytorch.safetensors.write import Tensor, loaded


@dataclass(frozen=True)
class _Settled:
    """What all edits mean together; `along`: (source, target) that become one too."""

    numbers: Mapping[str, Tensor]
    config: Config
    along: tuple[tuple[str, str], ...] = ()


class FolderDocument:
    """Tensors by the names that the graph shows; tied names have one `Tensor` object."""

    def __init__(
        self,
        config: Config,
        shards: Shards,
        weights: Weights,
        pairs: Sequence[Pair],
        shown: Mapping[str, Variable],
    ) -> None:
        self._config, self._shards, self._weights = config, shards, weights
        self._pairs = [p for p in pairs if p.source in shown and p.target in shown]
        stored: dict[Variable, str] = {}
        for name in weights.tensors:
            stored.setdefault(shown[name], name)
        self._places = {name: weights.places[stored[held]] for name, held in shown.items()}
        self._numbers = {name: weights.tensors[stored[held]] for name, held in shown.items()}
        self._tied = self._untied = False

    def tie(self, source: str, target: str, perm: Perm | None) -> None:
        """Makes one of two names that the class ties; TieRefused for any others."""
        if perm is not None:
            raise TieRefused(
                f"{target} would be {source} transposed, which transformers does not tie; "
                "a .pt state dict, a whole module and .pt2 can"
            )
        self._refuse_foreign(source, target)
        self._config.tied()
        self._tied = True
        self._replace(target, self._numbers[source])

    def _refuse_foreign(self, source: str, target: str) -> None:
        roots = {pair.target: pair.source for pair in self._pairs}
        one, other = roots.get(source, source), roots.get(target, target)
        if one == other and one in roots.values():
            return
        kind = self._config.architecture or "this model"
        own = ", ".join(f"{pair.target} <- {pair.source}" for pair in self._pairs)
        if not is_known(kind):
            own = "more than this version knows of"
        raise TieRefused(
            f"transformers would not tie {target} to {source}: of {kind} it ties "
            f"{own or 'nothing that is stored here'}; a .pt state dict can hold such a tie"
        )

    def assign(self, name: str, value: Array) -> None:
        """Gives a name, and all that are one with it, other numbers."""
        self._replace(name, loaded(name, in_memory(name, value)))

    def _replace(self, name: str, tensor: Tensor) -> None:
        old = self._numbers[name]
        for other, held in self._numbers.items():
            if held is old:
                self._numbers[other] = tensor

    def untie(self, name: str) -> None:
        """Gives a name its own copy; TieRefused where transformers would tie it again."""
        if any(name in (pair.source, pair.target) for pair in self._pairs if self._is_one(pair)):
            self._config.untied()
            self._untied = True
            self._numbers[name] = replace(self._numbers[name])  # equal, and not the same

    def _is_one(self, pair: Pair) -> bool:
        return self._numbers[pair.source] is self._numbers[pair.target]

    # What the edits mean together.

    @property
    def companions(self) -> tuple[tuple[str, str], ...]:
        """Pairs (source, target) that the flag makes one along with those that were asked for."""
        return self._settled().along

    def _settled(self) -> _Settled:
        if self._untied:
            self._refuse_half()
            return _Settled(self._numbers, self._config.untied())
        if not self._tied:
            return _Settled(self._numbers, self._config)
        if self._config.is_tied:  # what it leaves apart, it leaves apart as before
            return _Settled(self._numbers, self._config.tied())
        numbers, along = dict(self._numbers), []
        for pair in self._pairs:
            source, target = numbers[pair.source], numbers[pair.target]
            if source is target:
                continue
            if pair.idle:
                numbers[pair.source] = target
                along.append((pair.target, pair.source))
            elif _are_equal(source, target):
                numbers[pair.target] = source
                along.append((pair.source, pair.target))
            else:
                raise TieRefused(
                    f"transformers would tie {pair.target} to {pair.source} too, by the same "
                    "flag, and their numbers differ; give that --pair as well"
                )
        return _Settled(numbers, self._config.tied(), tuple(along))

    def _refuse_half(self) -> None:
        left = next((pair for pair in self._pairs if self._is_one(pair)), None)
        if left is not None:
            raise TieRefused(
                "transformers ties all that a class can tie or nothing, by one flag, and "
                f"{left.target} <- {left.source} would stay tied; untie without --pair"
            )

    # Writing.

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes a whole folder, which exists and is empty; all other files are copied."""
        settled = self._settled()
        names = self._stored_names(settled)
        after = Weights(
            {name: settled.numbers[name] for name in names},
            {name: self._places[name] for name in names},
            self._weights.metadata,
        )
        write_weights(self._shards, self._weights, after, path, provenance)
        done = {*self._shards.files, self._shards.index}
        if settled.config is not self._config:
            settled.config.write(path)
            done.add(configs.NAME)
        copy_others(self._shards.folder, path, done)

    def _stored_names(self, settled: _Settled) -> list[str]:
        """Of names that are one, only the one that transformers stores, if it was stored."""
        names = list(settled.numbers)
        if not settled.config.is_tied:
            return names
        members = {pair.source: None for pair in self._pairs}
        members |= {pair.target: None for pair in self._pairs}
        first: dict[int, str] = {}
        for name in sorted(members, key=lambda name: name not in self._weights.tensors):
            first.setdefault(id(settled.numbers[name]), name)
        dropped = members.keys() - set(first.values())
        return [name for name in names if name not in dropped]

    @property
    def warnings(self) -> Sequence[str]:
        """What else changes, and what stays behind."""
        found = []
        settled = self._settled()
        for source, target in settled.along:
            found.append(f"{target} becomes one with {source} too: one flag ties both pairs")
        if settled.config is not self._config and settled.config.needs_version_5:
            found.append(
                "transformers before 5 does not know scale_decoder_outputs: use 5 or newer"
            )
        if self._shards.are_pickled:
            file = self._shards.files[0]
            found.append(f"{file} is written as {renamed(file)}, which runs no code when opened")
        others = other_weights(self._shards)
        found += [f"{name} is copied as it is: nothing is changed in it" for name in others]
        return found

    @property
    def code(self) -> Sequence[str]:
        """None: the config says it."""
        return ()


def _are_equal(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return bits_equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Array:
    numbers = tensor.numbers
    if isinstance(numbers, Storage):
        return np.ascontiguousarray(numbers.load()).reshape(-1).view(np.uint8)
    return numbers.mapped(np.dtype("u1"))
