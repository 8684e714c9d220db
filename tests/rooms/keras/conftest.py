"""Frameworks speak to themselves while they start: their warnings are not ours."""

import contextlib
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import tf_keras  # noqa: F401
