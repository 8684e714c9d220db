"""Any graph as a safetensors file: each tensor once, the other names recorded."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph, Layer, Variable, View, in_memory
from tiesurgeon.rooms.pytorch.safetensors import read_safetensors, write_safetensors

V, H = 11, 3
TABLE = np.arange(V * H, dtype="f4").reshape(V, H)


def layer(name: str, *views: View) -> Layer:
    return Layer(name, "", views=views, separator=".")


def graph(*layers: Layer) -> Graph:
    return Graph("m", "", layers)


def test_what_names_share_is_written_once(tmp_path: Path) -> None:
    storage = in_memory("table", TABLE)
    tied, alias = Variable("embed.weight", storage), Variable("other.weight", storage)
    slot = Variable("exp_avg", in_memory("s", TABLE), kind="optimizer slot")
    made = graph(
        layer("embed", View("weight", tied)),
        layer("decoder", View("weight", tied)),
        layer("other", View("weight", alias), View("exp_avg", slot)),
    )
    write_safetensors(tmp_path / "m.safetensors", made, {"source": "m.pt"})

    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() == {"embed.weight"}
    np.testing.assert_array_equal(found["embed.weight"].numpy(), TABLE)
    again = read_safetensors(tmp_path / "m.safetensors").document
    assert list(again.code) == [
        "model.decoder.weight = model.embed.weight",
        "model.other.weight = model.embed.weight",
    ]


@pytest.mark.parametrize("dtype", [">f4", "<f8", ml_dtypes.bfloat16, "?", "u2"], ids=str)
def test_numbers_are_little_endian_whatever_they_were(tmp_path: Path, dtype: object) -> None:
    values = TABLE.astype(dtype)  # type: ignore[call-overload]
    held = Variable("a", in_memory("a", values.T))  # not contiguous
    write_safetensors(tmp_path / "m.safetensors", graph(layer("", View("a", held))), {})
    found = load_file(tmp_path / "m.safetensors")["a"].to(torch.float64)
    np.testing.assert_array_equal(found.numpy(), values.T.astype("f8"))


def test_a_dtype_that_the_format_lacks_is_named(tmp_path: Path) -> None:
    held = Variable("a", in_memory("a", TABLE.astype("c16")))
    with pytest.raises(UnsupportedFormat, match=r"a: safetensors has no dtype complex128"):
        write_safetensors(tmp_path / "m.safetensors", graph(layer("", View("a", held))), {})
