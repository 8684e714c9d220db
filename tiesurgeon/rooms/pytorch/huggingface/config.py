"""config.json as data: whether it ties, and what it must say to tie or not to tie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiesurgeon.errors import TieRefused, UnreadableFile
from tiesurgeon.rooms.pytorch.huggingface.defaults import ALWAYS_TIED, TIED_BY_DEFAULT
from tiesurgeon.rooms.pytorch.huggingface.folder import read_json

NAME = "config.json"
_FLAG = "tie_word_embeddings"
_TEXT = "text_config"  # the part that transformers 4 reads the flag of, in models of several
_SCALE = "scale_decoder_outputs"
_LARGEST = 1 << 24

# Multiplied by d_model ** -0.5 before the head: where the flag says so, or where _SCALE does,
# which takes the flag's word only if the config does not have it.
_SCALED = frozenset({"t5", "umt5", "longt5"})
_SCALED_BY_FLAG = frozenset({"switch_transformers"})


@dataclass(frozen=True)
class Config:
    """What config.json says."""

    content: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The class of the model; "" if it does not say."""
        found = self.content.get("architectures")
        return str(found[0]) if isinstance(found, list) and found else ""

    @property
    def model_type(self) -> str:
        """The family, as transformers names it."""
        return str(self.content.get("model_type", ""))

    @property
    def writer(self) -> str:
        """`transformers 5.24.0 (GPT2LMHeadModel)`."""
        version = self.content.get("transformers_version")
        name = f"transformers {version}" if isinstance(version, str) else "transformers"
        return f"{name} ({self.architecture})" if self.architecture else name

    @property
    def custom_code(self) -> tuple[str, ...]:
        """Classes of the folder's own that transformers would run, if allowed to."""
        found = self.content.get("auto_map")
        values = found.values() if isinstance(found, Mapping) else ()
        return tuple(value for value in values if isinstance(value, str))

    @property
    def is_tied(self) -> bool:
        """Whether transformers ties what the class can tie."""
        if self.model_type in ALWAYS_TIED:
            return True
        said = [flag for flag in self._flags() if isinstance(flag, bool)]
        return any(said) if said else self.model_type in TIED_BY_DEFAULT

    def _flags(self) -> tuple[Any, Any]:
        text = self.content.get(_TEXT)
        nested = text.get(_FLAG) if isinstance(text, Mapping) else None
        return self.content.get(_FLAG), nested

    def tied(self) -> Config:
        """The config of the same model, tied; TieRefused where its outputs would change."""
        if self.is_tied and self.content.get(_FLAG, True) is not False:
            return self
        if self.model_type in _SCALED_BY_FLAG:
            raise TieRefused(
                f"a {self.model_type} model with {_FLAG} scales what its head sees, so tying it "
                "would change its outputs"
            )
        changed = self._with_flag(True)
        if self.model_type in _SCALED:
            changed.setdefault(_SCALE, self.content.get(_FLAG) is not False)
        return Config(changed)

    def untied(self) -> Config:
        """The config of the same model, not tied; TieRefused where transformers ties anyway."""
        if self.model_type in ALWAYS_TIED:
            raise TieRefused(
                f"transformers ties a {self.model_type} model whatever its config says; convert "
                "it to a state dict first"
            )
        if self.model_type in _SCALED_BY_FLAG:
            raise TieRefused(
                f"a {self.model_type} model without {_FLAG} does not scale what its head sees, so "
                "untying it would change its outputs"
            )
        return Config(self._with_flag(False))

    def _with_flag(self, flag: bool) -> dict[str, Any]:
        changed = dict(self.content)
        changed[_FLAG] = flag
        if isinstance(changed.get(_TEXT), Mapping):
            changed[_TEXT] = {**changed[_TEXT], _FLAG: flag}
        return changed

    @property
    def needs_version_5(self) -> bool:
        """True if older transformers would scale what the head sees, against the config."""
        scales = self.content.get(_SCALE, True)
        return self.model_type in _SCALED and scales is False and self.content.get(_FLAG) is True

    def write(self, folder: Path) -> None:
        """Writes config.json as transformers lays it out."""
        text = json.dumps(self.content, indent=2, ensure_ascii=False)
        (folder / NAME).write_text(f"{text}\n", "utf-8")


def read_config(folder: Path) -> Config:
    """Reads config.json of a folder; UnreadableFile if it is none."""
    found = read_json(folder, NAME, _LARGEST)
    if not isinstance(found, dict):
        raise UnreadableFile(f"{NAME} is not a JSON object")
    return Config(found)
