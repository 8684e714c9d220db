"""What is tied, what could be, and how alike it is: from a graph, in numpy."""

from tiesurgeon.find.candidates import Candidate, candidates, duplicates
from tiesurgeon.find.proposals import Role
from tiesurgeon.find.ties import Tie, owner_first, ties
from tiesurgeon.find.values import CLOSE, Comparison, Match, Perm, compare

__all__ = [
    "CLOSE",
    "Candidate",
    "Comparison",
    "Match",
    "Perm",
    "Role",
    "Tie",
    "candidates",
    "compare",
    "duplicates",
    "owner_first",
    "ties",
]
