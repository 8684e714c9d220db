"""ONNX files -> `Graph`, without ONNX Runtime, and the document that changes them.

Layers are nodes, named as Netron names them: by the node, or by its first output where the
node has no name. A layer's views are the initializers and constants that it takes, each
under the name of its place: `/decoder/MatMul/B`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph
from tiesurgeon.rooms.onnx import wire
from tiesurgeon.rooms.onnx.document import OnnxDocument
from tiesurgeon.rooms.onnx.layers import Builder
from tiesurgeon.rooms.onnx.payloads import Payloads
from tiesurgeon.rooms.onnx.retarget import through_transposes

_MOST_NAMED = 8
_OPSETS_SINCE = 3  # IR version


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file holds; `provenance` is what tiesurgeon wrote into it, if it did."""

    graph: Graph
    writer: str
    document: OnnxDocument
    notes: tuple[str, ...] = ()
    format: str = "onnx"


def read(path: Path, *, config: Path | None = None) -> OnnxFile:
    """Reads an ONNX file; external data only from regular files in its own folder.

    Numbers stay in the file, memory-mapped. Raises UnreadableFile with one line where the
    file is not what it should be. `config` is for Keras weights, and not looked at.
    """
    with blamed(path, "an ONNX model"):
        _refuse_missing(path)
        payloads = Payloads()
        model = _parsed(wire.skeleton(path, payloads))
        document = OnnxDocument(path, model, payloads)
        notes = (*_notes(document.index), *_unsettled(document))
        return OnnxFile(document.graph, _writer(model), document, notes)


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        raise UnreadableFile("there is no such file")
    if not path.is_file():
        raise UnreadableFile("a folder, expected an ONNX file")
    if path.stat().st_size == 0:
        raise UnreadableFile("the file is empty")


def _parsed(data: bytes) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        raise UnreadableFile("is no protobuf of an ONNX model: damaged, or cut short") from None
    if not model.HasField("graph"):
        raise UnreadableFile("holds no graph, so it is no ONNX model")
    if model.ir_version >= _OPSETS_SINCE and not model.opset_import:
        raise UnreadableFile("names no opset, so it is cut short or no ONNX model")
    return model


def _writer(model: Any) -> str:
    producer = f"{model.producer_name} {model.producer_version}".strip() or "an unnamed producer"
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return f"{producer} (opset {opset}, IR {model.ir_version})"


def _notes(builder: Builder) -> Sequence[str]:
    notes = []
    found = dict(builder.quantised())
    if found:
        listed = [f"{name} is {storage.words}" for name, storage in found.items()]
        more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
        notes.append(
            "quantised, and shown as the floats they stand for: "
            f"{'; '.join(listed[:_MOST_NAMED])}{more}"
        )
    if builder.stored.sparse:
        names = ", ".join(dict.fromkeys(builder.stored.sparse))
        notes.append(f"stored sparse, only the numbers that are not zero are shown: {names}")
    unknown = _unknown(builder)
    if unknown:
        called = (f"{domain or 'ai.onnx'}.{op} ({n})" for (domain, op), n in unknown.items())
        notes.append(
            f"operators that are not known here, so what they take is not tied: {', '.join(called)}"
        )
    return notes


def _unsettled(document: OnnxDocument) -> Iterator[str]:
    names = through_transposes(document.index)
    if names:
        yield (
            f"{', '.join(names[:_MOST_NAMED])}: tied through a Transpose node, which optimisers "
            "fold into a second matrix; untie and tie again to have a form that lasts"
        )


def _unknown(builder: Builder) -> Mapping[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for node in builder.unknown:
        key = (node.domain, node.op_type)
        counts[key] = counts.get(key, 0) + 1
    return counts
