"""A proof runs in a fresh Python, alone with the framework: this starts it and hears its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiesurgeon.errors import ProofFailed

_TIMEOUT = 3600  # seconds
_MARK = "PROOF"


def ask(
    script: Path, spec: Mapping[str, Any], folder: Path, *, what: str = "what was written"
) -> dict[str, Any]:
    """Runs `script` on a spec in an isolated interpreter; returns the document it prints.

    Raises ProofFailed with the script's last word, which is also its cause, where it ends
    without one.
    """
    file = folder / "spec.json"
    file.write_text(json.dumps(spec), encoding="utf-8")
    try:
        done = subprocess.run(
            # -I: no PYTHONPATH, no current folder, nothing of the user's.
            [sys.executable, "-I", "-W", "ignore", str(script), str(file)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            cwd=folder,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProofFailed(f"the proof did not end within {_TIMEOUT} s; --proof static") from None
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return found
    words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = RuntimeError(words[-1] if words else "no word")
    raise ProofFailed(f"{what} could not be run ({said}); nothing was kept") from said
