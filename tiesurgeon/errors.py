"""Every error tiesurgeon raises on purpose, each one line for the user.

    TiesurgeonError
    |-- UnreadableFile     missing, empty, truncated, hostile, or not a model
    |-- UnsupportedFormat  a model, but of a kind this version does not handle
    |-- UnknownName        no layer or variable of that name (the nearest are listed)
    |-- ShapeMismatch      two matrices, or a matrix and its config, do not fit
    |-- TieRefused         the tie would change the model or cannot be expressed
    |-- UnmappedLayer      a layer or option without a counterpart in the other framework
    |-- OutputRefused      the output exists, cannot be written, or is the input
    |-- ProofFailed        what was written does not behave as it must
    |-- CannotRun          a model cannot be called, or not on the inputs it was given
    `-- MissingFramework   the job needs a framework that is not installed

The message says what was found, what was expected and what to do, on one line:
`cli.py` prints it to stderr and exits with status 1.
"""


class TiesurgeonError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line."""


class UnreadableFile(TiesurgeonError):
    """The file is missing, empty, truncated, hostile, or not a model."""


class UnsupportedFormat(TiesurgeonError):
    """The file is a model, but of a kind this version does not handle."""


class UnknownName(TiesurgeonError):
    """No layer or variable of that name."""


class ShapeMismatch(TiesurgeonError):
    """Two matrices, or a matrix and its config, do not fit."""


class TieRefused(TiesurgeonError):
    """The tie would change the model silently, or the format cannot express it."""


class UnmappedLayer(TiesurgeonError):
    """A layer or an option of one has no counterpart in the other framework."""


class OutputRefused(TiesurgeonError):
    """The output exists already, cannot be written, or is the input itself."""


class ProofFailed(TiesurgeonError):
    """What was written does not behave as it must; no output is left."""


class CannotRun(TiesurgeonError):
    """A model cannot be called, or not on the inputs it was given."""


class MissingFramework(TiesurgeonError):
    """The job needs a framework that is not installed."""
