"""The refusal of code that is not PyTorch's own."""


class Untrusted(Exception):
    """The file asks for code that only its owner can vouch for; the message names it."""
