"""The table: one entry per layer pair, one file per family. Importing this fills it."""

from tiesurgeon.mapping.layers import (
    activations,
    attention,
    bidirectional,
    convolution,
    core,
    merging,
    nested,
    normalization,
    operations,
    pooling,
    recurrent,
    regularization,
    reshaping,
)

__all__ = [
    "activations",
    "attention",
    "bidirectional",
    "convolution",
    "core",
    "merging",
    "nested",
    "normalization",
    "operations",
    "pooling",
    "recurrent",
    "regularization",
    "reshaping",
]
