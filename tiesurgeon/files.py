"""Outputs that are there whole or not at all: refused early, written aside, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tiesurgeon.errors import OutputRefused

WHOLE_SUFFIXES = (".weights.h5",)  # Keras goes by these two endings as one
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def writing(path: Path, *, force: bool = False, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """Gives a temporary path of the same name to write a file to; renames it to `path` at the end.

    What is written beside it under a longer name (`model.onnx.data`) comes along, first.
    Whatever is raised inside, KeyboardInterrupt included, leaves neither the temporary file nor
    a changed `path`. `inputs` are the files that must never be the output. OutputRefused where
    `path` exists and `force` is not given, is a folder or an input, or cannot be written.
    """
    refuse_output(path, force=force, inputs=inputs)
    if path.is_dir():
        raise OutputRefused(f"{path} is a folder, and this output is a file; give another output")
    with _beside(path) as temporary:
        yield temporary
        refuse_output(path, force=force, inputs=inputs)  # it may have come while we worked
        _move_beside(temporary, path, force=force, inputs=inputs)
        temporary.replace(path)


@contextmanager
def writing_folder(
    path: Path, *, force: bool = False, inputs: Sequence[Path] = ()
) -> Iterator[Path]:
    """Gives a new empty folder to fill, and renames it to `path` at the end; else like `writing`.

    With `force` an older folder is replaced only if all that it holds is being written anew, so
    that a mistyped name cannot delete someone's work.
    """
    refuse_output(path, force=force, inputs=inputs)
    if path.exists() and not path.is_dir():
        raise OutputRefused(f"{path} is a file, and this output is a folder; give another output")
    if Path.cwd().is_relative_to(path.resolve()):  # replaced, it would be gone under the shell
        raise OutputRefused(f"{path} holds the current folder; give another output")
    with _beside(path) as temporary:
        temporary.mkdir()
        yield temporary
        refuse_output(path, force=force, inputs=inputs)
        _replace_folder(temporary, path)


def refuse_output(path: Path, *, force: bool = False, inputs: Sequence[Path] = ()) -> None:
    """OutputRefused if `path` may not be written to; to be asked before long work begins."""
    for given in inputs:
        if _same(path, given):
            raise OutputRefused(f"{path} is the input, which is never changed; give another output")
    if os.path.lexists(path) and not force:
        raise OutputRefused(f"{path} exists; give --force or another output")
    if not path.parent.is_dir():
        raise OutputRefused(f"cannot write {path}: there is no folder {path.parent}")


def tied_output(model: Path) -> Path:
    """Where `tie` writes without -o: `model.h5` gives `model.tied.h5`, beside it."""
    folder, stem, suffix = _split(model)
    return folder / f"{stem}.tied{suffix}"


def untied_output(model: Path) -> Path:
    """Where `untie` writes without -o: `model.h5` gives `model.untied.h5`, beside it."""
    folder, stem, suffix = _split(model)
    return folder / f"{stem}.untied{suffix}"


_SUFFIXES = {
    "keras": ".keras",
    "h5": ".h5",
    "pt2": ".pt2",
    "safetensors": ".safetensors",
    "state-dict": ".state_dict.pt",
    "onnx": ".onnx",
}


def converted_output(model: Path, to: str) -> Path:
    """Where `convert` writes without -o: the folder `model_torch`, or `model.keras`, `model.h5`.

    A name that would be the input's own becomes `model.converted.h5`.
    """
    folder, stem, suffix = _split(model)
    if to not in _SUFFIXES:
        return folder / f"{stem}_{to}"
    if suffix == _SUFFIXES[to]:
        stem += ".converted"
    return folder / f"{stem}{_SUFFIXES[to]}"


def _split(model: Path) -> tuple[Path, str, str]:
    model = _named(model)
    for suffix in WHOLE_SUFFIXES:
        if model.name.endswith(suffix):
            return model.parent, model.name.removesuffix(suffix), suffix
    return model.parent, model.stem, model.suffix


def _named(path: Path) -> Path:
    return path.resolve() if path.name in ("", "..") else path


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them does not exist
        return False


def _move_beside(temporary: Path, path: Path, *, force: bool, inputs: Sequence[Path]) -> None:
    """Moves the files that belong to `temporary`; none of them if one may not be written."""
    more = sorted(set(temporary.parent.iterdir()) - {temporary})
    for file in more:
        refuse_output(path.with_name(file.name), force=force, inputs=inputs)
    for file in more:
        file.replace(path.with_name(file.name))


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path of the same name in a new hidden folder of the same parent (one file system)."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".tiesurgeon-", dir=path.parent))
    except OSError as error:
        reason = error.strerror or error
        raise OutputRefused(f"cannot write {path}: {reason}; give another output") from error
    try:
        yield folder / path.name
    except OSError as error:
        if error.errno not in FULL:
            raise
        reason = os.strerror(error.errno)
        raise OutputRefused(f"cannot write {path}: {reason}; nothing was left there") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    if not os.path.lexists(path):
        new.rename(path)
        return
    kept = {entry.name for entry in new.iterdir()} | {"__pycache__"}
    if foreign := sorted(entry.name for entry in path.iterdir() if entry.name not in kept):
        raise OutputRefused(
            f"{path} holds {foreign[0]}, which this output does not have, "
            "so --force will not replace it; give another output"
        )
    old = new.with_name(f"{new.name}.old")  # inside the hidden folder, so it goes with it
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
