"""What a layer's matrix does and which way it lies.

A table is looked up by row: (rows, width) in every framework. A product multiplies what comes
in: Keras keeps it as (in, out), PyTorch as (out, in). So an embedding and the output layer over
its vocabulary are each other's transpose in Keras, and of one shape in PyTorch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tiesurgeon.edits import Perm
from tiesurgeon.graph import Layer, View

TRANSPOSED: Perm = (1, 0)
TABLES = frozenset({"Embedding", "ReversibleEmbedding", "EmbeddingBag"})
_TABLE_ROLES = ("embeddings", "weight")

# The axis that what comes out runs along, by the name of the matrix.
_PRODUCTS = {"Dense": ("kernel", 1), "EinsumDense": ("kernel", 1), "Linear": ("weight", 0)}

# ONNX: the places of inputs that are looked up in, and that are multiplied by.
_ONNX_TABLES = {
    "Gather": "data",
    "GatherBlockQuantized": "data",
    "EmbedLayerNormalization": "word_embedding",
}
_ONNX_PRODUCTS = {
    "MatMul": ("B", 1),
    "MatMulInteger": ("B", 1),
    "MatMulIntegerToFloat": ("B", 1),
    "DynamicQuantizeMatMul": ("B", 1),
    "QLinearMatMul": ("b", 1),
    "MatMulNBits": ("B", 0),
}
_ONNX_FACTORS = {"MatMul": ("A", 0), "Gemm": ("A", 0)}  # the matrix stands before what comes in
_LAST_AXIS = re.compile(r"^(\.\.\.|[a-z]*)([a-z]),\2([a-z])->\1\3$")


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix that something is multiplied by; `out_axis` is the one of what comes out."""

    view: View
    out_axis: int

    @property
    def takes(self) -> int:
        """How many numbers go in."""
        return self.view.shape[1 - self.out_axis]

    @property
    def gives(self) -> int:
        """How many numbers come out."""
        return self.view.shape[self.out_axis]

    @property
    def to_table(self) -> Perm | None:
        """What turns it into the (rows, width) of an embedding with one row for each output."""
        return TRANSPOSED if self.out_axis == 1 else None

    def to_mirror(self, other: Product) -> Perm | None:
        """What turns the other into this one, where it undoes what this one does."""
        return TRANSPOSED if self.out_axis == other.out_axis else None


def is_dotted(layer: Layer) -> bool:
    """True for PyTorch's layers, whose names have dots and whose products are (out, in)."""
    return layer.separator == "."


def table_matrix(layer: Layer) -> View | None:
    """The (rows, width) of an embedding, or of a class of someone's own that is one."""
    if layer.op in _ONNX_TABLES:
        return _matrix(layer, _ONNX_TABLES[layer.op]) if _looks_up_rows(layer) else None
    if layer.op not in TABLES and not _says(layer, "num_embeddings", "embedding_dim"):
        return None
    return _matrix(layer, *_TABLE_ROLES)


def product_matrix(layer: Layer) -> Product | None:
    """The matrix of a Dense, of an EinsumDense that is one, of a Linear, MatMul or Gemm."""
    if layer.op == "EinsumDense":
        equation = str(layer.config.get("equation", "")).replace(" ", "")
        if not _LAST_AXIS.match(equation):
            return None
    role, out_axis = _PRODUCTS.get(layer.op) or _onnx_product(layer)
    if not role and _says(layer, "out_features", "in_features"):
        role = "weight"
    view = _matrix(layer, role) if role else None
    return None if view is None else Product(view, out_axis)


def is_convolution(layer: Layer, view: View) -> bool:
    """True for the kernel of a convolution, transposed ones included."""
    is_kernel = view.role in (("weight",) if is_dotted(layer) else ("kernel", "W"))
    is_kernel = is_kernel and len(view.shape) > 2
    return layer.op.startswith("Conv") and "LSTM" not in layer.op and is_kernel


def _looks_up_rows(layer: Layer) -> bool:
    """False for a Gather along another axis than the first."""
    return layer.config.get("axis", 0) in (0, -2)


def _onnx_product(layer: Layer) -> tuple[str, int]:
    role, out_axis = _ONNX_PRODUCTS.get(layer.op, ("", 0))
    if layer.op in ("Gemm", "QGemm"):
        role, out_axis = "B", 1 - int(bool(layer.config.get("transB")))
    if layer.op in _ONNX_FACTORS and layer.view(role) is None:
        role, out_axis = _ONNX_FACTORS[layer.op]
        out_axis += int(bool(layer.config.get("transA")))
    return role, out_axis


def _matrix(layer: Layer, *roles: str) -> View | None:
    found = (view for role in roles for view in [layer.view(role)] if view is not None)
    return next((view for view in found if len(view.shape) == 2), None)


def _says(layer: Layer, rows: str, columns: str) -> bool:
    """True if its attributes give its weight's shape, as those of a subclass do."""
    view = layer.view("weight")
    shape = layer.config.get(rows), layer.config.get(columns)
    return is_dotted(layer) and view is not None and view.shape == shape
