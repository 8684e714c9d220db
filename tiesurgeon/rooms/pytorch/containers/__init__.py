"""The files in which PyTorch keeps a pickle and its storages: zip archives, and the older stream.

Reading here never decodes the pickle: `pickles` does, and says which storages it wants.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, Protocol

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array
from tiesurgeon.rooms.pytorch.containers import legacy, zipped
from tiesurgeon.rooms.pytorch.tensors import Extent

PROVENANCE = "extra/tiesurgeon.json"  # a member where PyTorch does not look


class Container(Protocol):
    """A file of `torch.save` or `torch.jit.save`: one pickle, and storages that it names by key."""

    @property
    def kind(self) -> Literal["zip", "legacy"]:
        """How the file is built."""

    @property
    def pickle(self) -> bytes:
        """The pickle that everything hangs on, at most 64 MiB."""

    @property
    def names(self) -> tuple[str, ...]:
        """Members of an archive ("data.pkl", "code/__torch__.py"), its root left out; else none."""

    @property
    def swapped(self) -> bool:
        """True if the numbers lie in the byte order that this machine does not have."""

    @property
    def writer(self) -> str:
        """What wrote the file, as far as it says."""

    def read(self, name: str) -> bytes:
        """A member, unpacked, at most 64 MiB; KeyError if there is none."""

    def extents(self, element_sizes: Mapping[str, int]) -> Mapping[str, Extent]:
        """Where each of these storages lies. Raises UnreadableFile for a key that is not there.

        `element_sizes` gives for every key that the pickle names the bytes of one number.
        """

    def write(
        self,
        path: Path,
        pickle: bytes,
        keep: Collection[str],
        replaced: Mapping[str, Array],
        extra: Mapping[str, bytes],
    ) -> None:
        """Writes the file anew with another pickle, without loading what stays as it is.

        `keep`: the storages to copy. `replaced`: storages with other numbers, new keys among
        them. `extra`: members to add, or to put in place of those of the same name; a legacy
        file has no place for them and does without.
        """


def open_container(path: Path) -> Container:
    """The container that a file is, told by its first bytes as PyTorch does.

    Raises UnreadableFile for what is damaged, deceives, or is neither; UnsupportedFormat for
    the tar files of PyTorch before 0.1.10 and for TorchScript before 1.2.
    """
    with blamed(path, "a PyTorch file"):
        with path.open("rb") as file:
            head = file.read(512)
        if head.startswith(b"PK\x03\x04"):
            return zipped.ZipContainer(path)
        if legacy.is_legacy(head):
            return legacy.LegacyContainer(path)
        raise UnreadableFile("starts neither as a zip archive nor as a stream of torch.save")
