"""Frameworks speak to themselves while they start: their warnings are not ours."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import tf_keras  # noqa: F401
    except ImportError:
        pass
