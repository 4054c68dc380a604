"""Reports and results of searches made by hand."""

import numpy as np

import keras_edgeq as eq
from keras_edgeq.analysis.sensitivity_report import SensitivityReport
from keras_edgeq.measure.groups import Group
from keras_edgeq.mixed_precision.search_result import Point, SearchResult
from tests.models import inputs_for, make

CANDIDATES = ("W4A8", "W8A8", "W8A16")
NAMES = ("conv<1>&", "block/very_long_name_of_a_layer/with_more_of_it/depthwise_$2$", "head")


def report(names=NAMES, measure="sqnr", losses=None):
    """A report in which the first group has no kernel of W8A16 and the last gains by it."""
    if losses is None:
        losses = np.tile([2e-3, 0.0, 1e-4], (len(names), 1)) * np.arange(1, len(names) + 1)[:, None]
        losses[0, 2], losses[-1, 2] = np.nan, -1e-5
    groups = tuple(Group(name, "Conv2D", CANDIDATES) for name in names)
    return SensitivityReport(groups, CANDIDATES, measure, "W8A8", losses, 1e-3, 4.5, 2.0)


def point(names, narrow, loss=None, score=None):
    """A choice whose first `narrow` groups are W4A8."""
    choice = {name: "W4A8" if i < narrow else "W8A8" for i, name in enumerate(names)}
    size = 1.0 - 0.5 * narrow / len(names)
    return Point(
        choice,
        int(10_000 * size),
        size,
        4e6 * size,
        3000 - narrow,
        1e-3 * (1 + narrow),
        loss,
        score,
    )


def small_sim():
    model = make("one_channel")
    return eq.quantize(model, inputs_for(model), progress=False)


def result(sim, names=NAMES, measure="sqnr", cost="size"):
    """A search that measured its second point and chose it."""
    points = [point(names, n) for n in range(len(names), -1, -1)]
    best = points[1] = point(names, len(names) - 1, loss=5e-3, score=0.875)
    return SearchResult(sim, best, tuple(points), report(names, measure), cost, 7, 6.5, 3.0, sim)
