"""Hugging Face folders, judged by transformers in a fresh process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rooms.pytorch.stock.own_lm import V
from tiesurgeon.errors import ProofFailed
from tiesurgeon.graph import Graph
from tiesurgeon.model import Permissions
from tiesurgeon.outcome import Proof
from tiesurgeon.rooms.pytorch import export
from tiesurgeon.rooms.pytorch.run import Subject, judge

TIE = ("transformer.wte.weight", "lm_head.weight", None)

MAKE = """
import sys, torch
from transformers import GPT2Config, GPT2LMHeadModel
torch.manual_seed(0)
options = dict(vocab_size=11, n_embd=6, n_layer=1, n_head=2, n_positions=32,
               bos_token_id=1, eos_token_id=2)
untied = GPT2LMHeadModel(GPT2Config(tie_word_embeddings=False, **options)).eval()
untied.lm_head.weight.data.copy_(untied.transformer.wte.weight.data)
untied.save_pretrained(sys.argv[1] + "/untied")
tied = GPT2LMHeadModel(GPT2Config(tie_word_embeddings=True, **options)).eval()
tied.load_state_dict(untied.state_dict())
tied.save_pretrained(sys.argv[1] + "/tied")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`untied` and `tied`: one small GPT-2 with equal matrices."""
    place = tmp_path_factory.mktemp("gpt2")
    subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE, place], check=True)
    return place


def test_a_tied_folder_passes(folder: Path) -> None:
    subjects = [Subject(folder / name, "huggingface") for name in ("tied", "untied")]
    result = judge(subjects[0], subjects[1], [TIE])
    assert result.proof == Proof(reread=True, max_abs_diff=0.0, poke=True, step=True)
    assert f"inputs      token ids (2, 5) below {V}, guessed" in result.lines


def test_an_untied_folder_does_not(folder: Path) -> None:
    subject = Subject(folder / "untied", "huggingface")
    with pytest.raises(ProofFailed, match="are two parameters: it is not tied"):
        judge(subject, subject, [TIE])


def test_a_folder_with_code_needs_trust(folder: Path, tmp_path: Path) -> None:
    text = (folder / "tied" / "config.json").read_text()
    auto_map = '"auto_map": {"AutoModelForCausalLM": "modeling_own.Own"},'
    (tmp_path / "config.json").write_text(text.replace("{", "{" + auto_map, 1))
    subject = Subject(tmp_path, "huggingface")
    [word] = judge(subject, subject, [TIE]).warnings
    assert "opening it needs modeling_own.Own, which is not PyTorch's own" in word


def test_a_folder_can_be_exported(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "gpt2.pt2"
    graph = Graph("", "", ())
    subject = Subject(folder / "tied", "huggingface")
    result = export.export_subject(subject, graph, output, Permissions(), {}, full=True)
    assert result.proof.max_abs_diff == 0.0
    assert result.warnings == (
        "the program gives the logits alone, without transformers' other outputs",
    )
    assert "sizes       input_ids (any, any)" in result.lines
