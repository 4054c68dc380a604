"""What stands in the drawn figures; how they look was judged by eye."""

import itertools
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from keras_edgeq.analysis.drawing import PALETTE, write_png
from keras_edgeq.mixed_precision.cost_scale import scale_of
from keras_edgeq.mixed_precision.figures import (
    bits_of,
    bits_per_layer,
    pareto_curve,
    search_figure,
)
from tests.mixed_precision.results import NAMES, point, result, small_sim


@pytest.fixture(scope="module")
def sim():
    return small_sim()


def marked(axes, marker):
    """Return whether markers of a kind are filled -> where they stand."""
    return {
        line.get_markerfacecolor() != "none": line.get_xydata()
        for line in axes.lines
        if line.get_marker() == marker
    }


def test_the_curve_shows_what_was_measured_predicted_and_chosen(sim):
    (axes,) = pareto_curve(result(sim)).axes
    dots, star = marked(axes, "o"), marked(axes, "*")
    np.testing.assert_allclose(star[True], [[100 - 100 / 3, -10 * np.log10(5e-3)]])
    hollow = {50: 4e-3, 100 - 100 / 3: 3e-3, 100 - 50 / 3: 2e-3, 100: 1e-3}
    every = dict(map(tuple, dots[False]))
    np.testing.assert_allclose(list(every), list(hollow))
    np.testing.assert_allclose(list(every.values()), -10 * np.log10(list(hollow.values())))
    np.testing.assert_allclose(dots[True][0], star[True][0])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    chosen = "chosen: 66.67 %, 23.0 dB measured (25.2 dB predicted)"
    assert names == ["measured", "predicted", chosen]
    assert axes.get_ylabel() == "SQNR, dB"


def test_a_measured_point_is_filled_and_a_chosen_prediction_hollow(sim):
    made = result(sim)
    points = (point(NAMES, 3, loss=9e-3), *made.points[1:])
    (axes,) = pareto_curve(replace(made, points=points, best=points[2])).axes
    assert len(marked(axes, "o")[True]) == 2
    assert set(marked(axes, "*")) == {False}


def test_other_costs_and_measures_name_their_units(sim):
    (axes,) = pareto_curve(result(sim, measure="kl", cost="bitops")).axes
    assert axes.get_xlabel() == "bit operations, Mbitops"
    assert axes.get_ylabel() == "KL divergence, nats (less is better)"
    np.testing.assert_allclose(marked(axes, "*")[True], [[4 * 2 / 3, 5e-3]])
    assert scale_of("activation_memory", [2_999]).text(2_999) == "2.999 kB"
    assert scale_of("activation_memory", [12]).text(12) == "12 B"


def test_bits_are_those_of_the_profile(sim):
    profile = sim.record.profile
    known = {name: bits_of(profile.precision(name)) for name in ("W4A8", "W8A16", "FP16", "FP32")}
    assert known == {"W4A8": (4, 8), "W8A16": (8, 16), "FP16": (16, 32), "FP32": (32, 32)}


def test_each_group_has_a_bar_of_its_bits_in_the_colour_of_its_precision(sim):
    weights, activations = bits_per_layer(result(sim)).axes
    for axes, ends in ((weights, [4, 4, 8]), (activations, [8, 8, 8])):
        bars = sorted((b for c in axes.containers for b in c), key=lambda bar: bar.get_y())
        np.testing.assert_allclose([bar.get_x() + bar.get_width() for bar in bars], ends)
        shown = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in bars]
        assert shown == [PALETTE[0], PALETTE[0], PALETTE[1]]
    assert next(label.get_text() for label in weights.get_yticklabels()) == NAMES[0]
    assert all(not label.get_text() for label in activations.get_yticklabels())


@pytest.mark.parametrize("groups", [1, 3, 60])
def test_three_panels_share_rows_and_do_not_overlap(sim, groups):
    names = [f"{'layer_' * 9}{i}" for i in range(groups)]
    figure = search_figure(result(sim, names))
    figure.draw_without_rendering()
    curve, rows, *bands = figure.axes
    boxes = [axes.get_tightbbox() for axes in (rows, *bands)]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    assert all(box.y1 <= curve.get_tightbbox().y0 for box in boxes)
    heights = {tuple(np.round(axes.get_window_extent().intervaly, 3)) for axes in (rows, *bands)}
    assert len(heights) == 1
    assert rows.get_ylim() == bands[0].get_ylim() == bands[1].get_ylim()
    labels = [label.get_window_extent() for label in rows.get_yticklabels()]
    assert all(a.y0 >= b.y1 for a, b in itertools.pairwise(labels))
    lowest = min(box.y0 for box in boxes)
    assert 0 <= lowest < 0.3 * figure.dpi


def test_a_point_without_any_noise_is_left_out_of_the_curve(sim, tmp_path):
    made = result(sim)
    exact = replace(made.points[-1], loss=0.0)
    figure = pareto_curve(replace(made, points=(*made.points[:-1], exact), best=exact))
    assert np.isnan(marked(figure.axes[0], "*")[True][0, 1])
    write_png(figure, tmp_path / "curve.png")
