"""Torch code that model.py may need, copied into it as source text; only torch is used here."""
