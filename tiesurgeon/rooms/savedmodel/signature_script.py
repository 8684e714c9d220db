"""Runs in a process of its own, with TensorFlow and without tiesurgeon: calls a signature.

Reads a JSON spec (see `running.py`), prints one JSON document.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Writes the outputs by name, unless the model's operations reach beyond it."""
    # The same judgement of what may be run as in a proof.
    beside = runpy.run_path(str(Path(__file__).with_name("proof_script.py")))
    folder = Path(spec["folder"])
    if reaching := sorted(beside["reaching_out"](folder)):
        return {"refused": reaching}
    import numpy as np
    import tensorflow as tf

    function = tf.saved_model.load(str(folder)).signatures[spec["signature"]]
    with np.load(spec["inputs"]) as arrays:
        given = {name: tf.constant(arrays[name]) for name in arrays.files}
    outputs = function(**given)
    np.savez(spec["outputs"], **{name: outputs[name].numpy() for name in sorted(outputs)})
    return {}


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
