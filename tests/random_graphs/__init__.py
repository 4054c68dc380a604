"""Random models of all that the package knows: drawn from a table, printed as data, shrunk."""

from tests.random_graphs.check import Outcome, check_graph
from tests.random_graphs.generate import generate
from tests.random_graphs.graph import Graph, Node, build, inputs_for
from tests.random_graphs.shrink import shrink
from tests.random_graphs.table import TABLE, table_of

__all__ = [
    "TABLE", "Graph", "Node", "Outcome", "build", "check_graph", "generate", "inputs_for", "shrink",
    "table_of",
]  # fmt: skip
