"""Which kind of model file this is, told by its content; a suffix proves nothing."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat

_HEAD = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Probe:
    """What a look at a path tells: its first bytes, or the names of what it holds."""

    path: Path
    head: bytes = b""
    names: frozenset[str] = field(default_factory=frozenset)  # of a zip file or a folder
    is_folder: bool = False
    is_zip: bool = False

    @cached_property
    def is_hdf5(self) -> bool:
        """True if the HDF5 signature stands where the format allows it: 0, 512, 1024, ..."""
        if self.head.startswith(_HDF5):
            return True
        if self.is_folder or self.is_zip:
            return False
        size, offset = self.path.stat().st_size, 512
        with self.path.open("rb") as file:
            while offset + len(_HDF5) <= size:
                file.seek(offset)
                if file.read(len(_HDF5)) == _HDF5:
                    return True
                offset *= 2
        return False

    @cached_property
    def has_config(self) -> bool:
        """True for an HDF5 file in which Keras wrote the architecture too."""
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                return "model_config" in file.attrs
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UnreadableFile(
                f"{self.path}: starts as an HDF5 file but cannot be opened ({reason}); "
                "damaged or not fully downloaded, so get it again"
            ) from None

    def holds(self, *endings: str) -> bool:
        """True if a zip member or a file in the folder ends so."""
        return any(name.endswith(endings) for name in self.names)


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
    ),
    Format("torch-export", "a PyTorch exported program", (".pt2",), _is_torch_export),
    Format("torchscript", "a TorchScript model", (".pt", ".pth"), _is_torchscript),
    # Module, checkpoint or state dict: only reading the pickle tells, which is the room's work.
    Format(
        "torch-module",
        "a PyTorch file",
        (".pt", ".pth", ".bin", ".ckpt"),
        lambda probe: _is_torch_zip(probe) or _is_torch_legacy(probe),
    ),
    Format("huggingface", "a Hugging Face model folder", ("",), _is_huggingface),
    Format("safetensors", "a safetensors file", (".safetensors",), _is_safetensors),
    Format("onnx", "an ONNX model", (".onnx",), _is_onnx),
)


def _starts(*magics: bytes) -> Callable[[Probe], bool]:
    return lambda probe: probe.head.startswith(magics)


def _folder_with(*names: str) -> Callable[[Probe], bool]:
    return lambda probe: probe.is_folder and bool(probe.names & set(names))


def _is_text_of(*words: bytes) -> Callable[[Probe], bool]:
    return lambda probe: (
        probe.head.lstrip()[:1] == b"{" and all(word in probe.head for word in words)
    )


# Models, but of kinds that tiesurgeon does not open; each with what to do instead.
OTHER_MODELS: tuple[tuple[str, Callable[[Probe], bool], str], ...] = (
    ("a GGUF model (llama.cpp)", _starts(b"GGUF"), "use the model it was made from"),
    ("a GGML model", _starts(b"lmgg", b"ggml", b"fmgg", b"tjgg"), "use the model it was made from"),
    (
        "a TensorFlow Lite model",
        lambda probe: probe.head[4:8] == b"TFL3",
        "use the Keras model it was converted from",
    ),
    (
        "a PEFT adapter",
        lambda probe: (
            "adapter_config.json" in probe.names or probe.path.name.startswith("adapter_model.")
        ),
        "merge it into its base model first (merge_and_unload)",
    ),
    (
        "a TensorFlow.js model",
        _is_text_of(b'"modelTopology"'),
        "use the Keras model it was converted from",
    ),
    (
        "the architecture of a Keras model, without weights",
        _is_text_of(b'"class_name"'),
        "give it as --config together with the weights file",
    ),
    (
        "a TensorFlow checkpoint",
        lambda probe: "checkpoint" in probe.names or probe.path.suffix == ".index",
        "load it into its model and save that as .keras or .h5",
    ),
    (
        "a frozen TensorFlow graph",
        lambda probe: probe.head[:1] == b"\x0a" and probe.path.suffix == ".pb",
        "use the Keras model it was made from",
    ),
    (
        "a Core ML model",
        lambda probe: probe.is_folder and "Manifest.json" in probe.names,
        "use the model it was converted from",
    ),
    ("an OpenVINO model", _starts(b'<?xml version="1.0"?>\n<net'), "use the ONNX or Keras model"),
)

# Not models at all, but often found under a model's name.
_NO_MODELS: tuple[tuple[str, Callable[[Probe], bool], str], ...] = (
    (
        "a Git LFS pointer, not the file it points to",
        _starts(b"version https://git-lfs"),
        "run `git lfs pull`",
    ),
    (
        "an HTML page, so probably a failed download",
        lambda probe: probe.head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")),
        "download it again",
    ),
    ("a NumPy array", _starts(b"\x93NUMPY"), "give the model it belongs to"),
    (
        "NumPy arrays (.npz)",
        lambda probe: probe.is_zip and all(name.endswith(".npy") for name in probe.names),
        "give the model they belong to",
    ),
    (
        "compressed",
        _starts(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd"),
        "unpack it first",
    ),
    ("a Python pickle, but not one that PyTorch wrote", lambda probe: _is_pickle(probe), ""),
)


def recognise(path: Path) -> Format:
    """The format of a model file or folder that this version reads.

    Raises UnreadableFile for what is missing, empty or no model, and UnsupportedFormat,
    by name, for models of other kinds.
    """
    probe = _look(path)
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
    return "Keras files (.h5, .keras, .weights.h5)"


def _what_it_is(probe: Probe) -> str:
    for title, recognises, cure in _NO_MODELS:
        if recognises(probe):
            return f"is {title}" + (f"; {cure}" if cure else f"; expected {_readable()}")
    kind = "a folder without a model in it" if probe.is_folder else "not a model file"
    return f"{kind}; expected {_readable()}"


def _is_pickle(probe: Probe) -> bool:
    if not (len(probe.head) > 2 and probe.head[0] == 0x80 and probe.head[1] in range(2, 6)):
        return False
    try:
        next(pickletools.genops(probe.head))
    except ValueError:
        return False
    return True


def _look(path: Path) -> Probe:
    try:
        if path.is_dir():
            return Probe(path, names=frozenset(p.name for p in path.iterdir()), is_folder=True)
        if not path.exists():
            raise UnreadableFile(f"{path}: no such file")
        if not path.is_file():
            raise UnreadableFile(f"{path}: neither a file nor a folder; expected a model")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise UnreadableFile(f"{path}: the file is empty; expected {_readable()}")
    if not head.startswith(b"PK"):
        return Probe(path, head)
    try:
        with zipfile.ZipFile(path) as archive:
            return Probe(path, head, frozenset(archive.namelist()), is_zip=True)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableFile(
            f"{path}: starts as a zip file (.keras, .pt) but cannot be opened ({error}); "
            "damaged or not fully downloaded, so get it again"
        ) from None
