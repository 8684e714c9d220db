"""A Hugging Face folder -> one graph over all its shards; nothing of it is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Storage, Variable
from tiesurgeon.rooms.pytorch.bare import layers_of, variable
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.rooms.pytorch.huggingface.config import Config, read_config
from tiesurgeon.rooms.pytorch.huggingface.conventions import Pair, pairs
from tiesurgeon.rooms.pytorch.huggingface.document import FolderDocument
from tiesurgeon.rooms.pytorch.huggingface.shards import (
    Shards,
    find_shards,
    other_weights,
    refuse_lies,
)
from tiesurgeon.rooms.pytorch.huggingface.weights import Weights
from tiesurgeon.rooms.pytorch.safetensors.header import read_header
from tiesurgeon.rooms.pytorch.safetensors.read import named_variables, packed_notes
from tiesurgeon.rooms.pytorch.safetensors.write import Tensor, loaded, stored


def read_folder(path: Path) -> TorchFile:
    """Reads a folder with `config.json` and weights, sharded or not, `.safetensors` or `.bin`.

    A weight that is not stored because the config ties it is shown as what transformers makes
    of it when it loads the folder: the very variable that it is tied to. Raises UnreadableFile
    with one line where the folder is not what it should be.
    """
    with blamed(path, "a Hugging Face folder"):
        config, shards = read_config(path), find_shards(path)
        content = _Content()
        for file in shards.files:
            content.add_pickled(path, file) if shards.are_pickled else content.add(path, file)
        refuse_lies(shards, content.places)
        tied = pairs(config.architecture, content.variables)
        notes = (*content.notes, *_notes(config, shards, content, tied))
        notes += tuple(
            f"{file} holds weights too, which transformers does not load and which are not shown"
            for file in other_weights(shards)
        )
        weights = Weights(content.tensors, content.places, content.metadata)
        if config.is_tied:
            _tie(content.variables, tied)
        document = FolderDocument(config, shards, weights, tied, content.variables)
        graph = Graph(path.resolve().name, config.architecture, layers_of(content.variables))
        classes = (*config.custom_code, *content.classes)
        return TorchFile("huggingface", graph, config.writer, document, notes, classes)


@dataclass
class _Content:
    """What the shards hold, one after the other; all by the tensor's name or the file's."""

    variables: dict[str, Variable] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Mapping[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    def add(self, folder: Path, file: str) -> None:
        """A safetensors file."""
        with blamed(folder / file, "a safetensors file"):
            header = read_header(folder / file)
        for name, held in named_variables(header).items():
            self._place(name, file, held)
            self.tensors[name] = stored(header.entries[name])
        self.metadata[file] = header.metadata
        self.notes += packed_notes(header.entries)

    def add_pickled(self, folder: Path, file: str) -> None:
        """A file of `torch.save`; names that lie on one storage keep doing so."""
        from tiesurgeon.rooms.pytorch.pickles import read_pickled

        found = read_pickled(folder / file)
        for path, layer in found.graph.walk():
            for view in layer.views:
                name, storage = layer.name_of(view, path), view.variable.storage
                if view.perm is not None:
                    storage = Storage(name, view.shape, storage.dtype, view.load)
                self._place(name, file, variable(name, storage))
                self.tensors[name] = loaded(name, storage)
        self.metadata[file] = {}
        self.notes += found.notes
        self.classes += found.classes

    def _place(self, name: str, file: str, held: Variable) -> None:
        if name in self.places:
            raise UnreadableFile(f"{name} is in {self.places[name]} and in {file}")
        self.places[name] = file
        self.variables[name] = held


def _tie(variables: dict[str, Variable], tied: tuple[Pair, ...]) -> None:
    """Lets names that transformers makes one lead to one variable, those not stored included.

    Two that are stored both stay two: whether they are equal only their numbers can tell.
    """
    for pair in tied:
        source, target = variables.get(pair.source), variables.get(pair.target)
        one = source or target
        if one is None or (source and target and source.storage is not target.storage):
            continue
        variables[pair.source] = variables[pair.target] = one


def _notes(
    config: Config, shards: Shards, content: _Content, tied: tuple[Pair, ...]
) -> Iterator[str]:
    for pair in tied:
        source, target = (content.variables.get(name) for name in (pair.source, pair.target))
        if source is None or target is None:
            if not config.is_tied and not pair.idle and (source or target):
                missing = pair.target if target is None else pair.source
                yield (
                    f"{missing} is not stored and the config does not tie it: transformers will "
                    "give it random numbers"
                )
        elif config.is_tied and source.storage is not target.storage:
            yield (
                f"transformers ties {pair.target} to {pair.source} here, and the folder stores "
                "both: it makes them one if they are equal bit by bit, and leaves them two if "
                f"not; tying them drops the second copy, {target.storage.nbytes:,} bytes"
            )
    if said := shards.metadata.get("total_size"):
        held = sum(tensor.nbytes for tensor in content.tensors.values())
        if said != held and not shards.are_pickled:
            yield f"{shards.index} says total_size {said!r}, and the files hold {held:,} bytes"
