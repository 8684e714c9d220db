"""How two layers share one variable in stock Keras, and how to recognise it again.

In a `Graph` a tie is simply two views of one variable. Stock Keras can only share a whole
layer, so before writing

`realise`    turns each tie into one built-in layer that is called several times,
`head`       writes an output projection over an embedding (ReversibleEmbedding, reverse),
`transposed` writes two Dense layers over one matrix, one of them transposed,

and after reading `recognise` turns those forms back into the plain layers they stand for.
"""

from tiesurgeon.rooms.keras.tied.realise import realise
from tiesurgeon.rooms.keras.tied.recognise import recognise

__all__ = ["realise", "recognise"]
