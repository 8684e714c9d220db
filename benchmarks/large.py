"""Makes a PyTorch file of 2 GB, without PyTorch: `large.py FILE language-model` or `... pairs`.

To be run in a process of its own, whose memory then does not count in what is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tiesurgeon.graph import Array, Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.pytorch.safetensors import write_safetensors
from tiesurgeon.rooms.pytorch.state_dicts import write_state_dict

FLOAT = np.dtype("f4")
VOCABULARY, WIDTH = 50257, 1024
# Names with the seed of their numbers: one seed, equal matrices.
MODELS = {
    "language-model": {"embed": 0, "decoder": 0} | {f"layers.{n}": n + 1 for n in range(24)},
    # Whoever looks for duplicates must read all of it.
    "pairs": {f"layers.{n}": n // 2 for n in range(32)},
}


def main() -> None:
    path, seeds = Path(sys.argv[1]), MODELS[sys.argv[2]]
    graph = Graph(path.stem, "", tuple(layer(name, seed) for name, seed in seeds.items()))
    write = write_safetensors if path.suffix == ".safetensors" else write_state_dict
    write(path, graph, {})


def layer(name: str, seed: int) -> Layer:
    shape = (4096, 4096) if name.startswith("layers") else (VOCABULARY, WIDTH)

    def load() -> Array:
        return np.random.default_rng(seed).standard_normal(shape, dtype=FLOAT)

    variable = Variable(f"{name}.weight", Storage(name, shape, FLOAT, load))
    return Layer(name, "", views=(View("weight", variable),), separator=".")


if __name__ == "__main__":
    main()
