"""What the places of a node's inputs are called: `data`, `B`, `W`, as Netron shows them."""

from __future__ import annotations

from functools import cache
from typing import Any

_STANDARD = ("", "ai.onnx")

# ONNX Runtime's own operators that hold weights; they are not among the schemas of onnx.
# https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
_MICROSOFT = {
    name: tuple(roles.split())
    for name, roles in {
        "DynamicQuantizeMatMul": "A B b_scale b_zero_point bias",
        "MatMulIntegerToFloat": "A B a_scale b_scale a_zero_point b_zero_point bias",
        "MatMulNBits": "A B scales zero_points g_idx bias",
        "GatherBlockQuantized": "data indices scales zero_points",
        "QGemm": "A a_scale a_zero_point B b_scale b_zero_point C y_scale y_zero_point",
        "FusedMatMul": "A B",
        "FusedGemm": "A B C",
        "FusedConv": "X W B Z",
        "EmbedLayerNormalization": (
            "input_ids segment_ids word_embedding position_embedding segment_embedding gamma beta"
        ),
        "SkipLayerNormalization": "input skip gamma beta bias",
        "Attention": "input weights bias",
        "DynamicQuantizeLSTM": "X W R B sequence_lens initial_h initial_c P W_scale W_zero_point",
        "DequantizeLinear": "x x_scale x_zero_point",
        "QuantizeLinear": "x y_scale y_zero_point",
        "BiasGelu": "A B",
        "FastGelu": "X bias",
    }.items()
}


def is_known(node: Any) -> bool:
    """True for operators of ONNX itself and those of ONNX Runtime named here."""
    if node.domain in _STANDARD or node.domain == "ai.onnx.ml":
        return bool(_schema(node.op_type, node.domain, 1 << 20))
    return node.domain == "com.microsoft" and node.op_type in _MICROSOFT


def role(node: Any, index: int, opset: int) -> str:
    """What input number `index` is called; `input3` where no schema says."""
    if node.domain == "com.microsoft":
        names = _MICROSOFT.get(node.op_type, ())
    else:
        names = _schema(node.op_type, node.domain, opset)
    if index < len(names):
        return names[index]
    return f"input{index}"


@cache
def _schema(op: str, domain: str, opset: int) -> tuple[str, ...]:
    from onnx import defs

    domain = "" if domain == "ai.onnx" else domain
    try:
        schema = defs.get_schema(op, min(opset, 1 << 20), domain)
    except defs.SchemaError:
        return ()
    return tuple(one.name for one in schema.inputs)
