"""The table: one entry per layer pair, one file per family. Importing this fills it."""

from tiesurgeon.mapping.layers import (
    activations,
    attention,
    bidirectional,
    cells,
    convolution,
    core,
    merging,
    nested,
    normalization,
    operation_shapes,
    operations,
    pooling,
    recurrent,
    regularization,
    reshaping,
    transposed_convolution,
)

__all__ = [
    "activations",
    "attention",
    "bidirectional",
    "cells",
    "convolution",
    "core",
    "merging",
    "nested",
    "normalization",
    "operation_shapes",
    "operations",
    "pooling",
    "recurrent",
    "regularization",
    "reshaping",
    "transposed_convolution",
]
