"""Keras files: .h5 of every age, .keras, .weights.h5."""
