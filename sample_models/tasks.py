"""What the sample models are asked to do: arrays to learn from, arrays held out, and scores."""

import functools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from text import CHARACTERS, SEED, Docstring, docstrings, split

Array = npt.NDArray[Any]

WINDOW = 64  # characters
SENTENCE = 24  # words
LETTERS = "\0" + "abcdefghijklmnopqrstuvwxyz" + "."  # padding, letters, start and end of a word
WORD_LENGTH = 12
WORDS = 997
PAD, UNKNOWN, END = 0, 1, 2
TRIGRAMS = 251
KINDS = ("module", "class", "function", "method", "property")


@dataclass(frozen=True)
class Examples:
    """Inputs by name, one target a row or a step, and how much each target counts (0 or 1)."""

    inputs: dict[str, Array]
    targets: Array
    weights: Array

    def first(self, rows: int) -> "Examples":
        """Return the first few rows."""
        inputs = {name: array[:rows] for name, array in self.inputs.items()}
        return Examples(inputs, self.targets[:rows], self.weights[:rows])

    def save(self, path: Path, trained_on: int) -> None:
        """Write everything to one .npz, with the number of rows the model was trained on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {**self.inputs, "targets": self.targets, "weights": self.weights}
        np.savez_compressed(path, **arrays, trained_on=np.array(trained_on))

    @classmethod
    def load(cls, path: Path) -> tuple["Examples", int]:
        """Read what `save` wrote."""
        with np.load(path) as file:
            arrays = dict(file)
        trained_on = int(arrays.pop("trained_on"))
        targets, weights = arrays.pop("targets"), arrays.pop("weights")
        return cls(arrays, targets, weights), trained_on


Split = tuple[Examples, Examples]  # to train on, held out


def _on_both(make: Callable[[list[Docstring], random.Random], Examples]) -> Callable[[], Split]:
    """Apply `make` to the docstrings to train on and to those held out."""

    @functools.wraps(make)
    def both() -> Split:
        train, held_out = docstrings()
        return make(train, random.Random(SEED)), make(held_out, random.Random(SEED))

    return functools.cache(both)


# --- characters -------------------------------------------------------------------------------


def _windows(found: list[Docstring], length: int) -> Array:
    index = {character: i for i, character in enumerate(CHARACTERS)}
    stream = [index[character] for docstring in found for character in docstring.text + "\0"]
    rows = len(stream) // length
    return np.array(stream[: rows * length], "int32").reshape(rows, length)


@_on_both
def next_characters(found: list[Docstring], _: random.Random) -> Examples:
    """Each character of a window, given those before it."""
    windows = _windows(found, WINDOW + 1)
    targets = windows[:, 1:]
    return Examples({"tokens": windows[:, :-1]}, targets, np.ones(targets.shape, "float32"))


@_on_both
def blanked_characters(found: list[Docstring], rng: random.Random) -> Examples:
    """The characters of a window that were blanked out (one in four), given all the others."""
    windows = _windows(found, WINDOW)
    blank = np.random.default_rng(rng.randrange(2**32)).random(windows.shape) < 0.25
    return Examples({"tokens": np.where(blank, 0, windows)}, windows, blank.astype("float32"))


# --- words ------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z_]+|\d|[^\sa-z_\d]", text)


@functools.cache
def _vocabulary() -> dict[str, int]:
    """Return ids by frequency for the commonest words of the training text, from 3 on."""
    counts = Counter(word for docstring in docstrings()[0] for word in _words(docstring.text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: i for i, word in enumerate(ranked[: WORDS - 3], start=3)}


def _ids(words: Iterable[str]) -> list[int]:
    return [_vocabulary().get(word, UNKNOWN) for word in words]


def _padded(rows: Sequence[Sequence[int]], length: int) -> Array:
    """Cut each row to `length`, or fill it up with zeros on the right."""
    result = np.zeros((len(rows), length), "int32")
    for i, row in enumerate(rows):
        result[i, : len(row)] = row[:length]
    return result


@_on_both
def next_words(found: list[Docstring], _: random.Random) -> Examples:
    """Each word of a paragraph, given those before it; paragraphs differ in length."""
    paragraphs = [
        [END, *_ids(_words(paragraph)), END]
        for docstring in found
        for paragraph in docstring.text.split("\n\n")
    ]
    rows = _padded(
        [
            paragraph[i : i + SENTENCE + 1]
            for paragraph in paragraphs
            for i in range(0, len(paragraph) - 1, SENTENCE)
        ],
        SENTENCE + 1,
    )
    targets = rows[:, 1:]
    return Examples({"words": rows[:, :-1]}, targets, (targets != PAD).astype("float32"))


@_on_both
def kinds(found: list[Docstring], _: random.Random) -> Examples:
    """Whether a docstring documents a class, a function, ..., given its name and first words."""
    inputs = {
        "name": _padded([_ids(_words(d.name.replace("_", " ").lower())) for d in found], 5),
        "summary": _padded([_ids(_words(d.text)) for d in found], 20),
    }
    targets = np.array([KINDS.index(d.kind) for d in found], "int32")
    return Examples(inputs, targets, np.ones(len(found), "float32"))


# --- single words, lines ----------------------------------------------------------------------


@functools.cache
def _single_words() -> tuple[list[str], list[str]]:
    """Return words to train on and others held out, whichever docstrings they come from."""
    text = " ".join(docstring.text for part in docstrings() for docstring in part)
    return split({word for word in re.findall("[a-z]+", text) if 4 <= len(word) <= WORD_LENGTH})


@functools.cache
def reversed_words() -> Split:
    """The letters of a word from the last to the first, given the word."""
    train, held_out = _single_words()
    return _reversed_words(train), _reversed_words(held_out)


def _reversed_words(words: list[str]) -> Examples:
    backwards = [word[::-1] for word in words]
    inputs = {
        # Filled up on the left, so that the encoder ends on a letter.
        "word": _padded([_letters(word) for word in backwards], WORD_LENGTH)[:, ::-1],
        "so_far": _padded([_letters("." + word) for word in backwards], WORD_LENGTH + 1),
    }
    targets = _padded([_letters(word + ".") for word in backwards], WORD_LENGTH + 1)
    return Examples(inputs, targets, (targets != PAD).astype("float32"))


def _letters(word: str) -> list[int]:
    return [LETTERS.index(letter) for letter in word]


@functools.cache
def misspelt_words() -> Split:
    """Whether the second word is the first one misspelt, or some other word misspelt."""
    train, held_out = _single_words()
    return _misspelt_words(train), _misspelt_words(held_out)


def _misspelt_words(words: list[str]) -> Examples:
    rng = random.Random(SEED)
    by_start: dict[str, list[str]] = {}
    for word in words:
        by_start.setdefault(word[0], []).append(word)
    pairs = []
    for word in words * 6:
        # Another word with the same beginning, or the first letter alone would tell.
        other = word if rng.random() < 0.5 else rng.choice(by_start[word[0]])
        pairs.append((word, other, word == other))
    left, right, targets = zip(*pairs, strict=True)
    inputs = {
        "left": _padded([_letters(word)[::-1] for word in left], WORD_LENGTH)[:, ::-1],
        "right": _padded([_letters(_misspelt(w, rng))[::-1] for w in right], WORD_LENGTH)[:, ::-1],
    }
    return Examples(inputs, np.array(targets, "int32"), np.ones(len(targets), "float32"))


def _misspelt(word: str, rng: random.Random) -> str:
    """Drop a letter and replace another."""
    for replacement in ("", rng.choice(LETTERS[1:-1])):
        i = rng.randrange(len(word))
        word = word[:i] + replacement + word[i + 1 :]
    return word


@functools.cache
def trigrams() -> Split:
    """The commonest trigrams of a line, as a vector of zeros and ones that is its own target."""
    lines = [
        [line.strip() for docstring in part for line in docstring.text.splitlines() if line.strip()]
        for part in docstrings()
    ]
    counts = Counter(line[i : i + 3] for line in lines[0] for i in range(len(line) - 2))
    ranked = sorted(counts, key=lambda trigram: (-counts[trigram], trigram))[:TRIGRAMS]
    train, held_out = (
        np.array([[trigram in line for trigram in ranked] for line in part], "float32")
        for part in lines
    )
    return _own_target(train), _own_target(held_out)


def _own_target(rows: Array) -> Examples:
    return Examples({"trigrams": rows}, rows, np.ones(len(rows), "float32"))


# --- scores: what a model reached, and what the best constant answer would reach ---------------


@dataclass(frozen=True)
class Score:
    """A figure, beside that of the best answer which looks at no input."""

    name: str
    reached: float
    constant: float


def perplexity(outputs: Array, examples: Examples) -> Score:
    """Exp of the mean cross entropy; the constant answer is the targets' own frequencies."""
    targets, probabilities = _counted(outputs, examples)
    cross_entropy = -np.log(probabilities[np.arange(len(targets)), targets]).mean()
    frequencies = np.bincount(targets) / len(targets)
    entropy = -np.log(frequencies[targets]).mean()
    return Score("perplexity", float(np.exp(cross_entropy)), float(np.exp(entropy)))


def accuracy(outputs: Array, examples: Examples) -> Score:
    """Return the share of targets that got the highest score; constant: the commonest target."""
    targets, scores = _counted(outputs, examples)
    if scores.shape[-1] == 1:  # one probability for yes
        scores = np.concatenate([1 - scores, scores], axis=-1)
    right = (scores.argmax(-1) == targets).mean()
    return Score("accuracy", float(right), float(np.bincount(targets).max() / len(targets)))


def rows_right(outputs: Array, examples: Examples) -> Score:
    """Return the share of rows with every target right, as greedy decoding would give them.

    Greedy decoding goes wrong exactly where the first wrong letter is, given a right beginning:
    so a row is right in one way if it is right in the other.
    """
    wrong = (outputs.argmax(-1) != examples.targets) & (examples.weights > 0)
    _, commonest = np.unique(examples.targets, axis=0, return_counts=True)
    return Score("words right", float((~wrong.any(-1)).mean()), float(commonest.max() / len(wrong)))


def mse(outputs: Array, examples: Examples) -> Score:
    """Return the mean squared error; the constant answer is the mean of the targets."""
    error = np.square(outputs - examples.targets).mean()
    return Score("MSE", float(error), float(examples.targets.var(axis=0).mean()))


def _counted(outputs: Array, examples: Examples) -> tuple[Array, Array]:
    """Return the targets that count and the outputs for them, one row each."""
    counts = examples.weights > 0
    return examples.targets[counts], outputs[counts].astype("float64")
