"""Code that lies in a file as text, and that PyTorch would run: only arithmetic passes."""

import ast
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from .untrusted import Untrusted

_ARITHMETIC = (
    ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AnnAssign, ast.Return, ast.Name,
    ast.Attribute, ast.Constant, ast.Tuple, ast.List, ast.keyword, ast.expr_context, ast.BinOp,
    ast.operator, ast.UnaryOp, ast.unaryop,
)  # fmt: skip
_FUNCTIONS = {
    "torch._C._nn.linear",
    "torch.nn.functional.linear",
    "torch.matmul",
    "torch.transpose",
    "torch.permute",
}
_METHODS = {"t", "permute", "transpose", "contiguous", "matmul"}
# What torch.fx puts before a forward.
_HEADER = {
    "NoneType = type(None)",
    "from math import inf",
    "from math import nan",
    "from torch import device",
    "import torch",
    "import torch.fx._pytree as fx_pytree",
    "import torch.utils._pytree as pytree",
}


def refuse_other_forward(source: str) -> None:
    """Untrusted unless it is an fx module's `forward` of products, sums and transposes."""
    for node in ast.parse(source).body:
        is_forward = isinstance(node, ast.FunctionDef) and all(map(_is_arithmetic, ast.walk(node)))
        if not is_forward and ast.unparse(node) not in _HEADER:
            raise Untrusted("the code of an fx GraphModule")


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name == "forward" and not node.decorator_list
    if isinstance(node, ast.Call):
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        return ast.unparse(node.func) in _FUNCTIONS or method in _METHODS
    if isinstance(node, ast.Attribute):
        return not node.attr.startswith("__")
    return isinstance(node, _ARITHMETIC)


# sympy's and torch.utils._sympy's, as exports of dynamic shapes spell sizes.
_SIZES = set(
    "Symbol Integer Rational Float Add Mul Pow Mod Max Min Abs Eq Ne Lt Le Gt Ge And Or Not "
    "FloorDiv CleanDiv CeilDiv PythonMod ModularIndexing Where IntTrueDiv FloatTrueDiv "
    "FloatPow PowByNatural LShift RShift Identity ToFloat TruncToInt RoundToInt CeilToInt "
    "FloorToInt RoundDecimal IsNonOverlappingAndDenseIndicator oo nan true false int_oo zoo "
    "StrictLessThan LessThan StrictGreaterThan GreaterThan Equality Unequality floor ceiling "
    "L size stride storage_offset torch sym_float sym_int sym_max sym_min sym_not math "
    "True False None len abs max min int float".split()
)
_EXPRESSION = (
    ast.Expression, ast.Constant, ast.keyword, ast.expr_context, ast.Call, ast.BinOp, ast.operator,
    ast.UnaryOp, ast.unaryop, ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.Subscript,
    ast.Tuple, ast.List, ast.IfExp,
)  # fmt: skip
_SYMBOLS = ("s", "u", "f", "z", "zf", "zuf")  # before a number: how PyTorch names a size


# Operators of the dispatcher, and arithmetic on sizes.
_TARGETS = re.compile(
    r"torch\.ops\.(?!load_library|import_module|__)\w+"
    r"\.(__i?(and|or|xor|lshift|rshift)__|(?!__)\w+)(\.(?!__)\w+)?"
    r"|_operator\.(?!__|attrgetter|methodcaller|itemgetter|call)\w+"
    r"|math\.\w+|torch\.sym_\w+|torch\._sym_sqrt|torch\.utils\._sympy\.\w+\.\w+"
)


def refuse_other_exports(path: str) -> None:
    """Untrusted unless all that a `.pt2` names is operators, and all that it spells is sizes.

    `torch.export.load` gives sizes to sympify, which evaluates them, compiles guards, and
    looks up the functions that the nodes call.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                _refuse_other_document(json.loads(archive.read(name)))


def _refuse_other_document(document: Any) -> None:
    for key, item in _entries(document):
        if key == "target" and not _TARGETS.fullmatch(str(item)):
            raise Untrusted(f"the function {item}")
        if key in ("expr_str", "guards_code", "range_constraints"):
            for text in [item] if isinstance(item, str) else item or ():
                _refuse_other_size(str(text))


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    """Keys and items of all dicts, however deep."""
    if isinstance(document, Mapping):
        for key, item in document.items():
            yield key, item
            yield from _entries(item)
    elif isinstance(document, list):
        for item in document:
            yield from _entries(item)


def _refuse_other_size(text: str) -> None:
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        raise Untrusted("code in place of a size") from None
    for node in nodes:
        if isinstance(node, ast.Name):
            known = node.id in _SIZES or node.id.rstrip("0123456789") in _SYMBOLS
        elif isinstance(node, ast.Attribute):
            known = node.attr in _SIZES
        else:
            known = isinstance(node, _EXPRESSION)
        if not known:
            raise Untrusted("code in place of a size")
