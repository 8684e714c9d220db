"""Which weights transformers ties, by the class of the model and the names of its weights.

After `_tied_weights_keys` of the model classes in transformers 5 (`modeling_*.py`), which are
followed only where `tie_word_embeddings` is set. Rows are tried in order; the first whose class
fits and whose source is stored is it. "*" in a name stands for one part of it.
https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_utils.py
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_LM = r"(?:ForMaskedLM|ForCausalLM|LMHeadModel|ForPreTraining|ForRegionToPhraseAlignment)$"


@dataclass(frozen=True)
class Pair:
    """`target` becomes `source`, a full name each.

    `idle`: the model computes with the target only, so the source's own numbers do nothing
    while the two are apart.
    """

    source: str
    target: str
    idle: bool = False


@dataclass(frozen=True)
class _Head:
    """An output layer: the classes that have it, its weight, the tables it may become, and its
    bias with the parameter of the same length beside it."""

    classes: str
    weight: str
    tables: tuple[str, ...]
    bias: tuple[str, str] | None = None  # target, source


_HEADS = (
    _Head(
        "^(?:Albert)" + _LM,
        "predictions.decoder.weight",
        ("*.embeddings.word_embeddings.weight",),
        ("predictions.decoder.bias", "predictions.bias"),
    ),
    _Head(
        "^Lxmert" + _LM, "cls.predictions.decoder.weight", ("*.embeddings.word_embeddings.weight",)
    ),
    _Head(
        "^(?:Bert|BlipText|MegatronBert|BigBird|MobileBert|NomicBert|VisualBert|SqueezeBert|RoCBert|Ernie"
        "|Deberta|DebertaV2|RoFormer|FNet|LayoutLM|Mra|Nystromformer|Tapas|Yoso)" + _LM,
        "cls.predictions.decoder.weight",
        ("*.embeddings.word_embeddings.weight",),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ),
    _Head(
        "^(?:Roberta|XLMRoberta|XLMRobertaXL|RobertaPreLayerNorm|Camembert|Data2VecText|Xmod"
        "|JinaEmbeddingsV3|Longformer|IBert|MPNet)" + _LM + "|^BertGenerationDecoder$",
        "lm_head.decoder.weight",
        ("*.embeddings.word_embeddings.weight",),
        ("lm_head.decoder.bias", "lm_head.bias"),
    ),
    _Head("^(?:Esm|Gte)" + _LM, "lm_head.decoder.weight", ("*.embeddings.word_embeddings.weight",)),
    _Head(
        "^(?:Electra|ConvBert)(?:ForMaskedLM|ForCausalLM)$",
        "generator_lm_head.weight",
        ("*.embeddings.word_embeddings.weight",),
    ),
    _Head("^DistilBert" + _LM, "vocab_projector.weight", ("*.embeddings.word_embeddings.weight",)),
    _Head(
        "^ModernBert(?:Decoder)?" + _LM,
        "decoder.weight",
        ("model.embeddings.tok_embeddings.weight",),
    ),
    _Head("^(?:XLM|Flaubert)WithLMHeadModel$", "pred_layer.proj.weight", ("*.embeddings.weight",)),
    _Head("^XLNet" + _LM, "lm_loss.weight", ("*.word_embedding.weight",)),
    _Head("^Rwkv" + _LM, "head.weight", ("*.embeddings.weight",)),
    _Head("^Git" + _LM, "output.weight", ("*.embeddings.word_embeddings.weight",)),
    _Head("^GPTNeoXJapanese" + _LM, "embed_out.weight", ("*.embed_in.weight",)),
    _Head("^Ultrabert" + _LM, "head.decoder.weight", ("*.embed_tokens.weight",)),
    _Head(
        "^(?:Vilt|BridgeTower)" + _LM,
        "mlm_score.decoder.weight",
        (
            "*.embeddings.text_embeddings.word_embeddings.weight",
            "*.text_model.embeddings.word_embeddings.weight",
        ),
    ),
    _Head("^BioGpt" + _LM, "output_projection.weight", ("*.embed_tokens.weight",)),
    _Head("^TrOCR" + _LM, "output_projection.weight", ("model.decoder.embed_tokens.weight",)),
    _Head(
        "^(?:Whisper|Canary|CohereAsr|Moonshine|MoonshineStreaming)(?:ForConditionalGeneration|ForCausalLM)$",
        "proj_out.weight",
        ("model.decoder.embed_tokens.weight",),
    ),
    _Head(
        "^T5Gemma" + "ForConditionalGeneration$",
        "lm_head.out_proj.weight",
        ("model.decoder.embed_tokens.weight",),
    ),
    _Head(
        r"(?:ForCausalLM|LMHeadModel|DoubleHeadsModel|ForConditionalGeneration|MTModel|ForMaskedLM|ForCausalImageModeling|ForBlockDiffusion)$",
        "lm_head.weight",
        (
            "model.shared.weight",
            "shared.weight",
            "led.shared.weight",
            "model.language_model.shared.weight",
            "model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
            "model.text_model.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
            "transformer.wte.weight",
            "transformer.word_embeddings.weight",
            "gpt_neox.embed_in.weight",
            "backbone.embeddings.weight",
            "transformer.w.weight",
            "transformer.tokens_embed.weight",
            "funnel.embeddings.word_embeddings.weight",
            "prophetnet.word_embeddings.weight",
            "model.text_model.embeddings.tok_embeddings.weight",
            "model.embed_tokens.word_embeddings.weight",
            "model.embed_tokens.embed_tokens.weight",
        ),
    ),
)

# Encoder and decoder look up one table: "shared.weight", whatever stands before it.
_SHARING = re.compile(
    "^(?:T5|MT5|UMT5|LongT5|SwitchTransformers|Bart|MBart|Marian|Pegasus|PegasusX"
    "|BigBirdPegasus|Blenderbot|BlenderbotSmall|LED|M2M100|Mvp|NllbMoe|PLBart|Florence2)"
    "(?:MTModel|Model|EncoderModel|For)"
)
_WITHOUT_DECODER = re.compile("EncoderModel$|ForTokenClassification$|ForCausalLM$")

# In these classes the flag governs other weights too, or none of what the rows say.
_BEYOND = re.compile(
    "^(?:AudioFlamingo3|BailingHybrid|Bark|Blt|Cosmos3Edge|Csm|Deimv2|DFine|DiffusionGemma|Flava"
    "|FSMT|GlmImage|GraniteSpeech5|GroundingDino|Idefics|Inkling|Inkling2|Inkling2Loop|KimiLinear"
    "|Luke|MMGroundingDino|Mllama|MusicFlamingo|NeoMME|OpenAIGPTDoubleHeads|PeAudioVideo"
    "|Pix2Struct|Pix2StructText|PPDocLayoutV3|PPFormulaNet|ProphetNet|Qwen2_5Omni|Qwen2_5OmniTalker"
    "|RTDetrV2|Sam|SamHQ|SeamlessM4T|SeamlessM4Tv2|SpeechT5|T5Gemma2|Udop|Zamba|Zamba2)"
    "(?:(?:Encoder)?Model|For|Decoder|Depth|Fine)"
    "|^(?:BigBirdPegasusForCausalLM|BlipFor\\w+|Pop2Piano\\w+)$"
)


def is_known(architecture: str) -> bool:
    """False for classes of which it is known only that the flag does more than tie a head."""
    return not _BEYOND.search(architecture)


def pairs(architecture: str, names: Collection[str]) -> tuple[Pair, ...]:
    """What a class ties when the config tells it to, as far as `names`, those of the stored
    tensors, hold the source."""
    if not is_known(architecture):
        return ()
    return (*_head_pairs(architecture, names), *_shared_pairs(architecture, names))


def _head_pairs(architecture: str, names: Collection[str]) -> Iterator[Pair]:
    head = next((row for row in _HEADS if re.search(row.classes, architecture)), None)
    found = None if head is None else _table(head, names)
    if head is None or found is None:
        return
    prefix, table = found
    yield Pair(table, f"{prefix}{head.weight}")
    if head.bias is not None:
        target, source = head.bias
        yield Pair(f"{prefix}{source}", f"{prefix}{target}", idle=True)


def _table(head: _Head, names: Collection[str]) -> tuple[str, str] | None:
    """What stands before the names of head and table, and the table's full name.

    Some files leave out the name of the base model (`wte.weight`); models of several parts
    put that of the part before it (`language_model.model.embed_tokens.weight`).
    """
    for form in ("{}", "{base}", "(.+[.]){}"):
        for table in head.tables:
            base = table.partition(".")[2]
            text = form.format(_as_pattern(table), base=_as_pattern(base))
            found = [match for name in names if (match := re.fullmatch(text, name))]
            if len(found) == 1:
                [match] = found
                return (match.group(1) if match.re.groups else ""), match.group()
    return None


def _as_pattern(name: str) -> str:
    return re.escape(name).replace(r"\*", "[^.]+")


def _shared_pairs(architecture: str, names: Collection[str]) -> Iterator[Pair]:
    if not _SHARING.search(architecture):
        return
    parts = ["encoder"] if _WITHOUT_DECODER.search(architecture) else ["encoder", "decoder"]
    for name in names:
        prefix, part, _ = name.rpartition("shared.weight")
        if part and prefix.endswith(("", ".")) and name == f"{prefix}shared.weight":
            yield from (Pair(name, f"{prefix}{part}.embed_tokens.weight") for part in parts)
