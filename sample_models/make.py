"""Train the sample models and write them, with the figures they reached.

    python sample_models/make.py                   # all of them: 6 to 10 minutes on 2 cores
    python sample_models/make.py char_lm seq2seq   # some of them
    python sample_models/make.py --measure         # train nothing, print what the files reach

`README.md` is written from the files as they lie on disk: each is read back and measured on
the held-out examples of its task, which are kept in `held_out/`.
"""

import argparse
import importlib
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tasks
from text import CHARACTERS

HERE = Path(__file__).parent
HELD_OUT = 1000  # rows kept beside the models
Metric = Callable[[tasks.Array, tasks.Examples], tasks.Score]


@dataclass(frozen=True)
class Sample:
    """One model: where its builder is (a function of the sample's name), its task, its files."""

    module: str
    examples: Callable[[], tasks.Split]
    metrics: tuple[Metric, ...]
    files: tuple[str, ...]
    what: str
    unit: str  # what one row of the examples is

    @property
    def task(self) -> str:
        return self.examples.__name__


def make(name: str, out: Path) -> None:
    """Train one model and write its files and its held-out examples."""
    sample = SAMPLES[name]
    framework: Any = importlib.import_module(sample.module)
    train, held_out = sample.examples()
    framework.start()
    model = getattr(framework, name)(train)
    for file in sample.files:  # .keras first: saving .h5 changes the model's compile config
        framework.save(model, out / file)
    held_out.first(HELD_OUT).save(_held_out(sample, out), trained_on=len(train.targets))


def _held_out(sample: Sample, out: Path) -> Path:
    return out / "held_out" / f"{sample.task}.npz"


def measure(out: Path) -> str:
    """Read every file that is there, and return a table of what they reach."""
    lines = [
        "| file | KB | what it is | parameters | task | trained on | held out | constant answer |",
        "|---|---:|---|---:|---|---|---|---|",
    ]
    for sample in SAMPLES.values():
        framework: Any = importlib.import_module(sample.module)
        for file in sample.files:
            if not (out / file).exists():
                continue
            held_out, rows = tasks.Examples.load(_held_out(sample, out))
            model = framework.load(out / file)
            outputs = framework.predict(model, held_out.inputs)
            scores = [metric(outputs, held_out) for metric in sample.metrics]
            cells = [
                f"`{file}`",
                f"{(out / file).stat().st_size / 1000:.0f}",
                sample.what,
                f"{framework.parameters(model):,}",
                f"`{sample.task}`",
                f"{rows:,} {sample.unit}",
                ", ".join(f"{score.name} {score.reached:.4g}" for score in scores),
                ", ".join(f"{score.constant:.3g}" for score in scores),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


README = """\
# Sample models

Small models that were really trained, for the tests, the examples and anyone who wants to try
tiesurgeon before using it on a model of their own. `make.py` wrote them, and this page.

The text is the docstrings of Python's standard library: lower case, {characters} characters
(one of them the end of a docstring), or the {words} commonest words. One docstring in ten, and
for the tasks on single words one word in ten, was held out. Some docstrings are near copies of
others, so the held-out figures flatter a little; they are here to tell a working model from a
broken one. They are measured on the first {held_out:,} held-out rows, or all.

{table}

Perplexity is the exponential of the mean cross entropy in nats, counted where a character or
word was to be predicted; knowing nothing gives {characters} for characters and {words} for
words. The constant answer is the best one that ignores the input: the frequencies of the
held-out targets, the commonest one, or their mean.

## Use

`held_out/TASK.npz` holds those rows: the inputs by name, `targets`, `weights` (0 where a target
does not count) and `trained_on` (a number of rows). So the figures can be measured again with
any version of Python, without the text: `python make.py --measure`.

`torch_lm.pt` and `torch_lm_equal.pt` are whole pickled modules. To load them, have this folder on
the Python path, so that `torch_lm.CharLM` is found, and pass `weights_only=False` to `torch.load`.
`keras2_lm.h5` needs `tf_keras`; stock Keras 3 refuses it.

## Making them again

    pip install keras tensorflow tf_keras torch
    python make.py [NAME ...] [--out DIR]

The seed is fixed, and training is deterministic: on one machine with the same versions, two runs
give the same weights bit by bit, in whichever order (`.keras` files also hold the date). On another
processor, with other versions, or with another Python, whose docstrings differ, the weights
differ and the figures should stay close.
These were made with {versions}.
"""


def write_readme(out: Path) -> None:
    """Write `README.md` with the figures of the files that are there."""
    packages = ("keras", "tensorflow", "tf_keras", "torch", "numpy")
    versions = [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]
    page = README.format(
        table=measure(out),
        characters=len(CHARACTERS),
        words=tasks.WORDS,
        held_out=HELD_OUT,
        versions=", ".join(versions),
    )
    (out / "README.md").write_text(page, encoding="utf-8")


def main() -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Train the sample models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SAMPLES)}")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where to write")
    parser.add_argument("--measure", action="store_true", help="train nothing, print the figures")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SAMPLES):
        parser.error(f"no such model: {', '.join(sorted(unknown))}")

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Both Keras warn that .h5 is a legacy format, which is why there are .h5 files here.
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
    if options.measure:
        print(measure(options.out))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or SAMPLES:
        began = time.monotonic()
        make(name, options.out)
        print(f"{name}: {time.monotonic() - began:.0f} s")
    write_readme(options.out)


WINDOWS = f"windows of {tasks.WINDOW} characters"
SAMPLES = {
    "char_lm": Sample(
        "keras_models",
        tasks.next_characters,
        (tasks.perplexity,),
        ("char_lm.keras", "char_lm.h5"),
        "character LM, untied: Embedding, LSTM, Dense",
        WINDOWS,
    ),
    "char_lm_equal": Sample(
        "keras_models",
        tasks.next_characters,
        (tasks.perplexity,),
        ("char_lm_equal.keras", "char_lm_equal.h5"),
        "the same, trained tied, its one matrix stored twice",
        WINDOWS,
    ),
    "gru_lm": Sample(
        "keras_models",
        tasks.next_words,
        (tasks.perplexity,),
        ("gru_lm.keras",),
        "word LM with a mask: Embedding, GRU, TimeDistributed(Dense)",
        f"rows of up to {tasks.SENTENCE} words",
    ),
    "seq2seq": Sample(
        "keras_models",
        tasks.reversed_words,
        (tasks.perplexity, tasks.accuracy, tasks.rows_right),
        ("seq2seq.keras",),
        "reverses a word: two LSTMs, three matrices of one vocabulary; with its optimizer",
        "words",
    ),
    "autoencoder": Sample(
        "keras_models",
        tasks.trigrams,
        (tasks.mse,),
        ("autoencoder.keras",),
        "which trigrams a line has: Dense, Dense; with its optimizer",
        "lines",
    ),
    "siamese": Sample(
        "keras_models",
        tasks.misspelt_words,
        (tasks.accuracy,),
        ("siamese.keras",),
        "is one word the other misspelt: Embedding and LSTM called twice each",
        "pairs of words",
    ),
    "multi_input": Sample(
        "keras_models",
        tasks.kinds,
        (tasks.accuracy,),
        ("multi_input.keras",),
        "what a docstring documents, from its name and text: one Embedding, pooled, Dense",
        "docstrings",
    ),
    "keras2_lm": Sample(
        "keras2_models",
        tasks.blanked_characters,
        (tasks.perplexity,),
        ("keras2_lm.h5",),
        "fills in blanked characters, written by Keras 2: Embedding, Bidirectional(LSTM), Dense",
        WINDOWS,
    ),
    "torch_lm": Sample(
        "torch_models",
        tasks.next_characters,
        (tasks.perplexity,),
        ("torch_lm.pt",),
        "character LM, untied, a pickled module: nn.Embedding, nn.LSTM, nn.Linear",
        WINDOWS,
    ),
    "torch_lm_equal": Sample(
        "torch_models",
        tasks.next_characters,
        (tasks.perplexity,),
        ("torch_lm_equal.pt",),
        "the same, trained tied, its one matrix stored twice",
        WINDOWS,
    ),
}

if __name__ == "__main__":
    main()
