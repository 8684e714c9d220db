"""What is written: model.py as a person would write it, and weights that load and stay tied."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.mapping.comparing import assert_formatted
from tests.rooms.pytorch.code.graphs import (
    H,
    V,
    autoencoder,
    chain,
    language_model,
    layer,
    residual,
    two_models_over_one_table,
    variable,
)
from tiesurgeon.graph import Call, Graph, Layer, Value, Variable, View, in_memory
from tiesurgeon.mapping.to_torch import to_torch
from tiesurgeon.rooms.pytorch.code.source import model_source
from tiesurgeon.rooms.pytorch.code.write import write

TIED_LM = '''\
"""CharLm, converted from char_lm.keras by tiesurgeon 0.1.0.

Input:  ids    int32    (batch, steps)
Output: dense  float32  (batch, steps, 11)
"""

from pathlib import Path

from safetensors.torch import load_model
from torch import Tensor, nn


class CharLm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 3)
        self.lstm = nn.LSTM(3, 3, batch_first=True)
        self.dense = nn.Linear(3, 11)
        self.dense.weight = self.embedding.weight  # tied
        # Keras has one bias where PyTorch has two: bias_hh stays zero.
        self.lstm.bias_hh_l0.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        x, _ = self.lstm(x)
        return self.dense(x).softmax(dim=-1)


def load(path: str | Path = Path(__file__).with_name("model.safetensors")) -> CharLm:
    """The model with its trained weights, in eval mode."""
    model = CharLm()
    load_model(model, path)
    return model.eval()
'''

AUTOENCODER = """\
class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 3)
        self.decoder_bias = nn.Parameter(torch.empty(5))

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.relu(self.encoder(ids))
        return torch.sigmoid(F.linear(x, self.encoder.weight.t(), self.decoder_bias))
"""


RESIDUAL = """\
    def forward(self, ids: Tensor) -> Tensor:
        a = torch.relu(self.a(ids))
        x = self.b(a)
        return a + torch.relu(self.c(x))
"""


def _source(graph: Graph) -> str:
    return model_source(to_torch(graph), source="char_lm.keras", version="0.1.0")


def _written(graph: Graph, folder: Path) -> ModuleType:
    write(to_torch(graph), folder, source="char_lm.keras", version="0.1.0")
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_tied_language_model_reads_as_people_write_it() -> None:
    assert _source(language_model()) == TIED_LM


def test_a_transposed_tie_reads_as_people_write_it() -> None:
    assert AUTOENCODER in _source(autoencoder())


def _before_and_after(embedding: View | Variable, kernel: View | Variable, units: int) -> Graph:
    """A Dense on one input and an Embedding on another, of one variable, the Dense first."""
    inputs = (
        Layer("x", "InputLayer", {"batch_shape": (None, kernel.shape[0]), "dtype": "float32"}),
        Layer("ids", "InputLayer", {"batch_shape": (None,), "dtype": "int32"}),
    )
    table = {"input_dim": embedding.shape[0], "output_dim": embedding.shape[1]}
    layers = (
        layer("dense", "Dense", {"units": units}, kernel=kernel),
        layer("embedding", "Embedding", table, embeddings=embedding),
    )
    calls = (
        Call("x", "x"),
        Call("ids", "ids"),
        Call("dense", "dense", (Value("x"),)),
        Call("embedding", "embedding", (Value("ids"),)),
    )
    ends = [Value("x"), Value("ids")], [Value("dense"), Value("embedding")]
    return Graph("m", "Functional", (*inputs, *layers), calls, *ends)


def test_an_embedding_owns_what_it_shares_even_if_it_comes_later() -> None:
    kernel = variable("kernel", 3, 11)
    source = _source(_before_and_after(View("embeddings", kernel, perm=(1, 0)), kernel, 11))
    assert "        self.dense.weight = self.embedding.weight  # tied\n" in source


def test_an_embedding_owns_a_transposed_tie_too() -> None:
    kernel = variable("kernel", 11, 3)
    source = _source(_before_and_after(kernel, kernel, 3))
    assert "        dense = F.linear(x, self.embedding.weight.t())\n" in source
    assert "self.dense" not in source


def test_only_a_chain_is_called_x() -> None:
    source = _source(residual())
    assert RESIDUAL in source


def test_a_mask_is_computed_where_it_is_used() -> None:
    source = _source(language_model(mask_zero=True))
    assert "        x, _ = run_masked(self.lstm, x, mask)\n" in source
    assert "        mask = ids != 0\n" in source


def test_two_nested_models_tied_by_their_owner() -> None:
    source = _source(two_models_over_one_table())
    assert "        self.b.embedding.weight = self.a.embedding.weight  # tied\n" in source


@pytest.mark.parametrize("build", [language_model, autoencoder, two_models_over_one_table])
def test_the_text_is_as_ruff_leaves_it(build: Callable[[], Graph], tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(_source(build()))
    assert_formatted(path)


def test_a_tie_is_one_parameter(tmp_path: Path) -> None:
    module = _written(language_model(), tmp_path).load()
    assert module.dense.weight is module.embedding.weight
    assert not module.training
    names = [name for name, _ in module.named_parameters()]
    assert "dense.weight" not in names
    assert "embedding.weight" in names


def test_one_step_moves_both_ends_alike(tmp_path: Path) -> None:
    module = _written(language_model(), tmp_path).load().train()
    before = module.dense.weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1)
    module(torch.zeros(2, 5, dtype=torch.long)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, module.dense.weight)
    assert torch.equal(module.dense.weight, module.embedding.weight)
    assert torch.count_nonzero(module.lstm.bias_hh_l0) == 0


def test_the_gradient_of_a_transposed_tie_is_of_both_uses(tmp_path: Path) -> None:
    module = _written(autoencoder(), tmp_path).load()
    x = torch.randn(7, 5, dtype=torch.float32)
    module(x).sum().backward()
    weight = module.encoder.weight
    code = torch.relu(x @ weight.t() + module.encoder.bias).detach()
    y = torch.sigmoid(code @ weight + module.decoder_bias).detach()
    decoder_side = code.t() @ (y * (1 - y))
    assert (weight.grad - decoder_side).abs().sum() > 1e-3  # the encoder has its share
    assert len(list(module.parameters())) == 3


def test_a_tie_is_stored_once_and_recorded(tmp_path: Path) -> None:
    write(to_torch(language_model()), tmp_path, source="char_lm.keras", version="0.1.0")
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert "dense.weight" not in file.keys()  # noqa: SIM118 (not a dict)
        assert file.get_tensor("embedding.weight").shape == (V, H)
        metadata = file.metadata()
    header = int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little")
    assert header % 8 == 0  # the numbers start aligned
    assert metadata["dense.weight"] == "embedding.weight"
    assert metadata["writer"] == "tiesurgeon 0.1.0"
    assert metadata["source"] == "char_lm.keras"


def test_it_loads_in_its_folder_where_there_is_no_tiesurgeon(tmp_path: Path) -> None:
    write(to_torch(language_model()), tmp_path, source="char_lm.keras", version="0.1.0")
    script = (
        "import sys; sys.modules['tiesurgeon'] = None\n"
        "import model, torch\n"
        "m = model.load()\n"
        "assert m.dense.weight is m.embedding.weight\n"
        "print(tuple(m(torch.zeros(2, 5, dtype=torch.long)).shape))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == "(2, 5, 11)\n"


def test_converting_imports_no_framework(tmp_path: Path) -> None:
    script = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from tests.rooms.pytorch.code.graphs import language_model\n"
        "from tiesurgeon.mapping.to_torch import to_torch\n"
        "from tiesurgeon.rooms.pytorch.code.write import write\n"
        f"write(to_torch(language_model()), Path({str(tmp_path)!r}), source='x', version='0')\n"
        "print(json.dumps(sorted(set(sys.modules) & {'torch', 'tensorflow', 'keras', 'jax'})))"
    )
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == []
    assert (tmp_path / "model.py").exists()


def test_frozen_variables_stay_frozen(tmp_path: Path) -> None:
    weights = {"kernel": variable("k", 5, 3, trainable=False), "bias": variable("b", 3)}
    both = {name: variable(name, *v.shape, trainable=False) for name, v in weights.items()}
    layers = (
        layer("first", "Dense", {"units": 3}, **weights),
        layer("second", "Dense", {"units": 3}, **{**both, "kernel": variable("k", 3, 3)}),
        layer("third", "Dense", {"units": 3}, **{**both, "kernel": variable("l", 3, 3)}),
    )
    frozen = layer("fourth", "Dense", {"units": 5}, **_all_frozen(3, 5))
    graph = chain("frozen", (*layers, frozen), (None, 5), "float32")
    source = _source(graph)
    assert "        self.first.weight.requires_grad_(False)\n" in source
    assert "        self.fourth.requires_grad_(False)\n" in source
    module = _written(graph, tmp_path).load()
    assert not module.first.weight.requires_grad
    assert module.first.bias.requires_grad


def _all_frozen(rows: int, columns: int) -> dict[str, Variable]:
    return {
        "kernel": variable("kernel", rows, columns, trainable=False),
        "bias": variable("bias", columns, trainable=False),
    }


def test_weights_that_are_not_numbers_are_kept(tmp_path: Path) -> None:
    broken = variable("kernel", 5, 3)
    broken.storage.load()[0] = (np.nan, np.inf, -np.inf)
    graph = chain("odd", (layer("d", "Dense", {"units": 3}, kernel=broken),), (None, 5), "float32")
    weight = _written(graph, tmp_path).load().d.weight.detach().numpy()
    assert np.array_equal(weight.T, broken.storage.load(), equal_nan=True)


def test_other_number_types_are_kept(tmp_path: Path) -> None:
    wide = variable("kernel", 5, 3)
    double = replace(wide, storage=in_memory("kernel", np.ones((5, 3), "f8")))
    graph = chain("f8", (layer("d", "Dense", {"units": 3}, kernel=double),), (None, 5), "float64")
    module = _written(graph, tmp_path).load()
    assert module.d.weight.dtype == torch.float64
    assert module(torch.ones(2, 5, dtype=torch.float64)).tolist() == [[5.0] * 3] * 2
