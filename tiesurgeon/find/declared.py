"""Custom layers that say they use another layer's weights, as the well-known recipes do.

`TiedEmbeddingsTransposed(tied_to=embedding)` and `DenseTied(units, tied_to=encoder)` hold
a live layer, which no file of Keras can keep: it says so in their class or config at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tiesurgeon.find.flow import Flow, Node
from tiesurgeon.find.projections import Projection
from tiesurgeon.find.proposals import Proposal, Role
from tiesurgeon.find.tables import Table
from tiesurgeon.graph import Layer
from tiesurgeon.names import Spot
from tiesurgeon.orientation import TRANSPOSED, is_dotted

# Not the built-in Conv2DTranspose and Transpose.
_SAYS_TIED = re.compile(r"tied|tying|transposed|embeddings?_?transpose$|shared_?weight")
_NAMING_KEYS = re.compile(
    r"tied|tie_|^(?:shared_|master_|source_)?(?:embeddings?|layer|encoder)(?:_layer)?$"
)
_BUILT_IN = frozenset({"Embedding", "ReversibleEmbedding", "Dense", "EinsumDense"})

Source = Table | Projection


def declared(
    flow: Flow,
    tokens: Sequence[Table],
    products: Sequence[Projection],
    spots: Sequence[Spot],
) -> Iterator[Proposal]:
    """A proposal for each layer that declares a tie, with the layer it means."""
    taken: set[int] = set()
    seen: set[str] = set()
    for node in flow.nodes:
        named = _named_layer(node.layer)
        if node.path in seen or node.layer.op in _BUILT_IN or is_dotted(node.layer):
            continue
        if named is None and not _SAYS_TIED.search(node.layer.op.lower()):
            continue
        seen.add(node.path)
        found = _source(flow, node, named, (*tokens, *products), taken)
        if found is not None:
            taken.add(id(found))
            # Its weights may be listed under a wrapper such as TimeDistributed.
            held = [spot for spot in spots if f"{node.path}/".startswith(f"{spot.path}/")]
            yield _proposal(node, found, named, held)


def _named_layer(layer: Layer) -> str | None:
    """The layer that the config names under a key such as `tied_to`."""
    for key, value in layer.config.items():
        if _NAMING_KEYS.search(key):
            name = _name_in(value)
            if name is not None:
                return name
    return None


def _name_in(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        config = value.get("config")
        return _name_in(config) if isinstance(config, Mapping) else _name_in(value.get("name"))
    return None


def _source(
    flow: Flow, node: Node, named: str | None, sources: Sequence[Source], taken: set[int]
) -> Source | None:
    """The layer it names; else the nearest before it that fits and no other layer took."""
    if named is not None:
        return next((s for s in sources if named in (s.spot.layer.name, s.spot.path)), None)
    upstream = flow.upstream(node.index)
    fitting = [
        source
        for source in sources
        if _fits(node.layer, source)
        and id(source) not in taken
        and any(use.index in upstream for use in _uses(source))
    ]
    return max(fitting, key=lambda source: _uses(source)[0].index, default=None)


def _uses(source: Source) -> tuple[Node, ...]:
    return source.lookups if isinstance(source, Table) else source.uses


def _fits(layer: Layer, source: Source) -> bool:
    if "embed" in layer.op.lower() and not isinstance(source, Table):
        return False
    if "dense" in layer.op.lower() and isinstance(source, Table):
        return False
    rows = source.view.shape[0]  # what its transpose gives
    units = layer.config.get("units", layer.config.get("output_dim"))
    if isinstance(units, int) and units != rows:
        return False
    # Beside its own bias it may list the other layer's, as `.h5` files do.
    known = {(rows,), *(view.shape for view in source.spot.layer.views)}
    matrix = sorted(source.view.shape)
    return all(
        view.shape in known if len(view.shape) == 1 else sorted(view.shape) == matrix
        for view in layer.views
    )


def _proposal(node: Node, source: Source, named: str | None, held: Sequence[Spot]) -> Proposal:
    role: Role = "embedding-output" if isinstance(source, Table) else "dense-dense"
    name = source.spot.layer.name
    how = f"its config names {named}" if named else f"its class says so, and {name} is what fits"
    says = f"{node.layer.op} is a custom layer that uses another's weights: {how}"
    others = [spot for spot in held if spot.view and spot.view.variable is not source.view.variable]
    own = [s for s in others if s.view and s.view.shape == source.view.shape[::-1]]
    copies = tuple(spot for spot in others if spot not in own)
    if own:
        reason = f"{says}; it holds the matrix transposed"
        return Proposal(source.spot, own[0], TRANSPOSED, role, reason, copies=copies)
    kept = "the file holds a second copy" if copies else "it holds no matrix of its own"
    return Proposal(
        source.spot,
        Spot(node.path, node.layer, None),
        TRANSPOSED,
        role,
        f"{says}; {kept}",
        declared=True,
        copies=copies,
    )
