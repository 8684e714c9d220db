"""Starts one of the jobs beside it, with PyTorch and without tiesurgeon.

Reads a JSON order, prints one JSON document. What a job proves is that a stranger can load
and train the result, so the package must not be importable; and as the user's own modules
may be, the jobs go by a name that no module of theirs has.
"""

import importlib
import importlib.util
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

_NAME = "_tiesurgeon_stock"


def main(order: dict[str, Any]) -> dict[str, Any]:
    """What the job `order["job"]` answers; whatever the model prints goes to stderr."""
    here = Path(__file__)
    spec = importlib.util.spec_from_file_location(
        _NAME, here.with_name("__init__.py"), submodule_search_locations=[str(here.parent)]
    )
    assert spec is not None
    sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    with redirect_stdout(sys.stderr):
        document: dict[str, Any] = importlib.import_module(f"{_NAME}.{order['job']}").main(order)
    return document


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    answer = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("\nPROOF" + json.dumps(answer))
