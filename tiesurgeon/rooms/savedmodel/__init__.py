"""TensorFlow's SavedModel: read without TensorFlow, written by it.

Where a Keras config is inside, the model is a Keras graph, so this room stands on `rooms.keras`.
"""
