"""How many axes each value of a model has, as far as the file and ONNX's own inference tell."""

from __future__ import annotations

from typing import Any

from tiesurgeon.rooms.onnx.places import graphs


def ranks_of(model: Any) -> dict[str, int]:
    """Ranks by the name of the value; shapes are not to be relied on, an exporter may guess."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except (RuntimeError, ValueError, TypeError, onnx.shape_inference.InferenceError):
        inferred = model
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for graph in graphs(inferred)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
