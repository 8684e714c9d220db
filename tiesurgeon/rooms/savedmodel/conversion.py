"""From a Keras file to a SavedModel; `model.py` has the way back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiesurgeon import edits
from tiesurgeon.outcome import Result
from tiesurgeon.rooms.keras.model import KerasModel
from tiesurgeon.rooms.keras.surgery import Order
from tiesurgeon.rooms.savedmodel import surgery


def to_savedmodel(
    model: KerasModel, folder: Path, provenance: Mapping[str, Any], *, full: bool
) -> Result:
    """Writes an opened Keras file into an empty folder, with the ties that it has, and proves it.

    Raises UnsupportedFormat for weights without a graph, and whatever `surgery.produce` raises.
    """
    model.refuse_unchangeable()
    order = Order(
        before=edits.untie(model.graph),  # what the proof of the ties compares with
        after=model.graph,
        original=None if model.has_config_apart else model.path,
        provenance=provenance,
        training=model.found.training,
        written_by=model.found.writer,
    )
    return surgery.produce(order, folder, full=full)
