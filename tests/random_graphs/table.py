"""All rows: what a random model may call."""

from dataclasses import replace

from tests.random_graphs.island_rows import ISLANDS
from tests.random_graphs.layer_rows import LAYERS
from tests.random_graphs.op_rows import OPS
from tests.random_graphs.rows import Row
from tests.random_graphs.written_rows import ARITHMETIC, MOVES

# Models are made of layers first, and most layers take one rank only.
LAYER_WEIGHT = 2.5

TABLE: dict[str, Row] = {
    **{name: replace(row, weight=LAYER_WEIGHT * row.weight) for name, row in LAYERS.items()},
    **OPS,
    **MOVES,
    **ARITHMETIC,
    **ISLANDS,
}
