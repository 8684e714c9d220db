"""A PyTorch file with a pickle -> its graph and its document, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.rooms.pytorch.containers import Container, open_container
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.rooms.pytorch.pickles import mappings
from tiesurgeon.rooms.pytorch.pickles.content import content_of
from tiesurgeon.rooms.pytorch.pickles.graphs import graph_of, notes_on
from tiesurgeon.rooms.pytorch.pickles.machine import decode
from tiesurgeon.rooms.pytorch.pickles.nodes import walk
from tiesurgeon.rooms.pytorch.pickles.numbers import numbers_of
from tiesurgeon.rooms.pytorch.pickles.recognised import tensor_of
from tiesurgeon.rooms.pytorch.pickles.scripted import is_scripted
from tiesurgeon.rooms.pytorch.pickles.surgery import PickledDocument
from tiesurgeon.rooms.pytorch.pickles.trust import classes_in


def read_pickled(path: Path) -> TorchFile:
    """Reads what `torch.save` or `torch.jit.save` wrote: a module, a state dict, a checkpoint.

    Nothing of the pickle is run. Raises UnreadableFile where the file is damaged or deceives,
    UnsupportedFormat where it holds no weights or a kind of tensor that is not known.
    """
    with blamed(path, "a PyTorch file"):
        container = open_container(path)
        decoded = decode(container.pickle)
        content = content_of(decoded.root, container.read)
        if not any(found.parts for found in content.sets):
            raise UnsupportedFormat(f"holds no weights, only {_shown(decoded.root)}")
        numbers = numbers_of(container, decoded.root)
        return TorchFile(
            content.format,
            graph_of(path.stem, content, numbers),
            container.writer,
            PickledDocument(container, decoded, numbers),
            (*notes_on(decoded.root), *_notes_beside(container)),
            () if is_scripted(decoded.root) else classes_in(decoded.root),
        )


def _notes_beside(container: Container) -> tuple[str, ...]:
    """Tensors that are constants of compiled code, as `torch.jit.freeze` leaves them."""
    if "constants.pkl" not in container.names:
        return ()
    nodes = walk(decode(container.read("constants.pkl")).root)
    count = sum(tensor_of(node) is not None for node in nodes)
    word = f"tensors among the constants of its compiled code, which nothing can tie: {count}"
    return (word,) if count else ()


def _shown(root: Any) -> str:
    made_by = mappings.global_of(root)
    return f"a pickled {type(root).__name__ if made_by is None else str(made_by)[:200]}"
