"""Which kind of model file this is, told by its content; a suffix proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.formats.others import NO_MODELS, OTHER_MODELS
from tiesurgeon.formats.probe import Probe, look

__all__ = ["FORMATS", "UNTRANSPOSED", "WEIGHTS_ONLY", "Format", "recognise"]


@dataclass(frozen=True)
class Format:
    """One kind of model file. `room` reads it; None: known by name only, so far."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Probe], bool]
    room: str | None = None


def _is_keras_v3(probe: Probe) -> bool:
    return probe.is_zip and bool(probe.names & {"config.json", "model.weights.h5"})


def _is_torch_export(probe: Probe) -> bool:
    return probe.is_zip and probe.holds("models/model.json", "serialized_exported_program.json")


def _is_torchscript(probe: Probe) -> bool:
    return probe.is_zip and probe.holds("/data.pkl") and probe.holds("/constants.pkl")


def _is_torch_zip(probe: Probe) -> bool:
    return probe.is_zip and probe.holds("/data.pkl")


def _is_torch_legacy(probe: Probe) -> bool:
    magic = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
    return magic in probe.head[:16] or (probe.head[:1] == b"\x80" and b"ctorch." in probe.head)


def _is_safetensors(probe: Probe) -> bool:
    length = int.from_bytes(probe.head[:8], "little")
    return probe.head[8:10] in (b'{"', b"{}", b"{ ") and 2 <= length < 1 << 27


def _is_huggingface(probe: Probe) -> bool:
    weights = (".safetensors", "pytorch_model.bin", ".safetensors.index.json")
    return probe.is_folder and "config.json" in probe.names and probe.holds(*weights)


def _is_onnx(probe: Probe) -> bool:
    """ModelProto: field 1 is ir_version, then a short producer name, opsets or the graph."""
    head = probe.head
    if len(head) < 8 or head[0] != 0x08 or not 1 <= head[1] < 0x40:
        return False
    if head[2] == 0x12:  # a SavedModel's field 2 is a long message instead of a name
        return head[3] < 0x40 and head[4 : 4 + head[3]].isascii()
    return head[2] in (0x3A, 0x42)


def _never(probe: Probe) -> bool:
    return False


_PICKLED = (".pt", ".pth", ".bin", ".ckpt")

# They hold weights without a model: whether two names that are stored once are one variable is up
# to the class that loads them.
WEIGHTS_ONLY = frozenset({"torch-state-dict", "torch-checkpoint", "safetensors"})
# They cannot say that a matrix is another one transposed.
UNTRANSPOSED = frozenset({"safetensors", "huggingface", "torchscript"})

# The first that fits is it. Names are those of `inspect --json`.
FORMATS = (
    Format(
        "keras-h5",
        "a Keras .h5 model",
        (".h5", ".hdf5", ".keras"),
        lambda probe: probe.is_hdf5 and probe.has_config,
        "keras",
    ),
    Format(
        "keras-weights-h5",
        "Keras weights without a model",
        (".weights.h5", ".h5", ".hdf5"),
        lambda probe: probe.is_hdf5,
        "keras",
    ),
    Format("keras-v3", "a .keras model", (".keras",), _is_keras_v3, "keras"),
    Format(
        "savedmodel",
        "a TensorFlow SavedModel",
        ("",),
        lambda probe: probe.is_folder and "saved_model.pb" in probe.names,
        "savedmodel",
    ),
    Format("torch-export", "a PyTorch exported program", (".pt2",), _is_torch_export, "pytorch"),
    Format("torchscript", "a TorchScript model", (".pt", ".pth"), _is_torchscript, "pytorch"),
    # Module, checkpoint or state dict: only reading the pickle tells, which is the room's work.
    Format(
        "torch-module",
        "a PyTorch module",
        _PICKLED,
        lambda probe: _is_torch_zip(probe) or _is_torch_legacy(probe),
        "pytorch",
    ),
    Format("torch-checkpoint", "a PyTorch checkpoint", _PICKLED, _never, "pytorch"),
    Format("torch-state-dict", "a PyTorch state dict", _PICKLED, _never, "pytorch"),
    Format("huggingface", "a Hugging Face model folder", ("",), _is_huggingface, "pytorch"),
    Format("safetensors", "a safetensors file", (".safetensors",), _is_safetensors, "pytorch"),
    Format("onnx", "an ONNX model", (".onnx",), _is_onnx, "onnx"),
)


def recognise(path: Path) -> Format:
    """The format of a model file or folder that this version reads.

    Raises UnreadableFile for what is missing, empty or no model, and UnsupportedFormat,
    by name, for models of other kinds.
    """
    probe = look(path)
    for title, recognises, cure in OTHER_MODELS:
        if recognises(probe):
            raise UnsupportedFormat(f"{path}: {title}, which is not supported; {cure}")
    for known in FORMATS:
        if known.recognises(probe):
            if known.room is None:
                raise UnsupportedFormat(
                    f"{path}: {known.title}, which comes in a later version; "
                    f"this one reads {_readable()}"
                )
            return known
    raise UnreadableFile(f"{path}: {_what_it_is(probe)}")


def _readable() -> str:
    return (
        "a Keras model (.h5, .keras, SavedModel), a PyTorch model (.pt, .pt2, .safetensors, a "
        "Hugging Face folder) or an ONNX model"
    )


def _what_it_is(probe: Probe) -> str:
    for title, recognises, cure in NO_MODELS:
        if recognises(probe):
            return f"is {title}" + (f"; {cure}" if cure else f"; expected {_readable()}")
    kind = "a folder without a model in it" if probe.is_folder else "not a model file"
    return f"{kind}; expected {_readable()}"
