"""Brings the stored config of a Keras model of any age (1.x to 3.x) into the Keras 3.15 dialect.

Nothing here imports a framework or touches a file: configs are plain dicts in and out.

`plain`       JSON left-overs (`ndarray`, `__tuple__`, `TensorShape`) become plain values
`catalogue`   which layers and operations Keras 3.15 has, and in which module
`entries`     what kind of thing a stored entry is, and which Keras wrote it
`names`       layer names
`inputs`      the input shapes that older layers declared themselves
`draft`       one layer while it is being rewritten
`keras1`      the words of Keras 1
`rules`       what changed in each layer since Keras 2
`merges`      Keras 1's Merge
`parts`       initializers, regularizers, constraints, dtypes, activations
`nodes`       how layers are called
`operations`  TensorFlow operations recorded as layers
`models`      layers within models within models
"""

from tiesurgeon.rooms.keras.dialects.models import Modernised, modernise

__all__ = ["Modernised", "modernise"]
