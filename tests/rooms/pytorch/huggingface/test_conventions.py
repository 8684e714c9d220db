"""The table of what transformers ties says what the classes of transformers say."""

from typing import Any

import pytest

from tests.rooms.pytorch.huggingface.conftest import found
from tiesurgeon.rooms.pytorch.huggingface.conventions import is_known, pairs
from tiesurgeon.rooms.pytorch.huggingface.defaults import ALWAYS_TIED, TIED_BY_DEFAULT

# One of every row, those that share a row where the names differ, and some that have no head.
CLASSES = """
AlbertForMaskedLM BertForMaskedLM BertForPreTraining BertLMHeadModel BertModel
BertForSequenceClassification DebertaV2ForMaskedLM FNetForMaskedLM RobertaForMaskedLM
MPNetForMaskedLM XLMRobertaForMaskedLM GteForMaskedLM ElectraForMaskedLM ConvBertForMaskedLM
DistilBertForMaskedLM ModernBertForMaskedLM ModernBertForSequenceClassification
XLMWithLMHeadModel XLNetLMHeadModel RwkvForCausalLM GitForCausalLM GPTNeoXForCausalLM
GPTNeoXJapaneseForCausalLM BioGptForCausalLM TrOCRForCausalLM WhisperForConditionalGeneration
GPT2LMHeadModel GPT2Model LlamaForCausalLM LlamaForSequenceClassification OPTForCausalLM
BloomForCausalLM MambaForCausalLM CTRLLMHeadModel FunnelForMaskedLM LlavaForConditionalGeneration
T5ForConditionalGeneration T5EncoderModel T5ForTokenClassification BartForConditionalGeneration
BartForSequenceClassification BartForCausalLM MarianMTModel
LEDForConditionalGeneration M2M100ForConditionalGeneration
""".split()


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return found("tied", *CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_ties_these(truth: dict[str, Any], name: str) -> None:
    expected = truth[name]["pairs"]
    stored = [key for key in truth[name]["names"] if key not in expected]
    assert is_known(name)
    assert {pair.target: pair.source for pair in pairs(name, stored)} == expected
    # The same where everything is stored.
    assert {p.target: p.source for p in pairs(name, truth[name]["names"])} == expected


def test_a_config_without_the_flag_means_what_its_class_says(truth: dict[str, Any]) -> None:
    flags = {name: said for name, said in truth["flags"].items() if len(said) == 2}
    tied = {name for name, (default, _) in flags.items() if default is True}
    assert tied == TIED_BY_DEFAULT & flags.keys()
    always = {name for name, (_, off) in flags.items() if off is True}
    # Two take the word of the part for the text, whose own default it is.
    assert always - {"hunyuan_vl", "paddleocr_vl"} == ALWAYS_TIED


@pytest.mark.parametrize(
    ("name", "stored", "expected"),
    [
        ("GPT2LMHeadModel", ["wte.weight"], {"lm_head.weight": "wte.weight"}),
        (
            "LlavaForConditionalGeneration",  # as transformers 4 names them
            ["language_model.model.embed_tokens.weight", "vision_tower.embeddings.weight"],
            {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"},
        ),
        ("GPT2Model", ["wte.weight"], {}),
        ("SomethingElse", ["model.embed_tokens.weight"], {}),
        ("ZambaForCausalLM", ["model.embed_tokens.weight"], {}),
    ],
)
def test_other_names_in_older_files(name: str, stored: list[str], expected: dict[str, str]) -> None:
    assert {pair.target: pair.source for pair in pairs(name, stored)} == expected


def test_classes_whose_flag_does_more_are_told_apart() -> None:
    assert not is_known("ZambaForCausalLM")
    assert not is_known("SamModel")
    assert is_known("SamplingForCausalLM")
