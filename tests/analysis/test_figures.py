"""What stands in the drawn figures; how they look was judged by eye."""

import itertools
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from keras_edgeq.analysis.drawing import (
    LONGEST_NAME,
    PALETTE,
    new_figure,
    own_style,
    shortened,
    svg,
    write_png,
)
from keras_edgeq.analysis.figures import sensitivity_bars
from keras_edgeq.errors import EdgeqError
from tests.mixed_precision.results import NAMES, report


def bars(axes):
    """Colour -> the ends of its bars, from the top."""
    found = {}
    for patch in axes.containers:
        for bar in patch:
            colour = matplotlib.colors.to_hex(bar.get_facecolor())
            row = bar.get_y() + bar.get_height() / 2
            found.setdefault(colour, []).append((row, bar.get_x() + bar.get_width()))
    return {colour: [end for _, end in sorted(ends)] for colour, ends in found.items()}


def rings(axes):
    return sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o")


def test_bars_end_at_the_losses_and_the_baseline_has_none():
    (axes,) = sensitivity_bars(report()).axes
    losses = report().losses
    drawn = bars(axes)
    assert set(drawn) == {PALETTE[0], PALETTE[2]}
    np.testing.assert_allclose(drawn[PALETTE[0]], losses[:, 0])
    # The first group has no such kernel, and the last gains: only the latter gets a ring.
    np.testing.assert_allclose(drawn[PALETTE[2]], losses[1:2, 2])
    assert rings(axes) == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "W4A8", "W8A16", "none, or less",
    ]  # fmt: skip


def test_groups_stand_in_graph_order_from_the_top_with_names_as_they_are():
    (axes,) = sensitivity_bars(report()).axes
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == [shortened(name) for name in NAMES]
    assert not any(label.get_parse_math() for label in labels)
    low, high = axes.get_ylim()
    assert low > high


def test_a_long_name_keeps_its_beginning_and_its_end():
    name = "a" * 30 + "b" * 30
    short = shortened(name)
    assert len(short) == LONGEST_NAME
    assert short.startswith("aaa")
    assert short.endswith("b" * 26)
    assert shortened("a" * LONGEST_NAME) == "a" * LONGEST_NAME


def test_points_of_a_score_go_both_ways_on_a_plain_axis():
    losses = np.array([[1.5, 0.0, 0.0], [-0.5, 0.0, 0.25], [0.75, 0.0, 0.0]])
    (axes,) = sensitivity_bars(report(measure="score", losses=losses)).axes
    assert axes.get_xscale() == "linear"
    np.testing.assert_allclose(bars(axes)[PALETTE[0]], losses[:, 0])
    assert rings(axes) == 2


def test_a_group_far_worse_than_the_others_does_not_stretch_the_axis():
    losses = np.tile([1e-12, 0.0, np.nan], (3, 1))
    losses[1, 0] = np.inf
    losses[2, 0] = 0.5
    (axes,) = sensitivity_bars(report(losses=losses)).axes
    assert axes.get_xlim() == (1e-6, 1.0)
    np.testing.assert_allclose(bars(axes)[PALETTE[0]], [1.0, 0.5])
    assert rings(axes) == 1


def test_nothing_lost_anywhere_is_still_a_picture(tmp_path):
    figure = sensitivity_bars(report(losses=np.zeros((3, 3))))
    write_png(figure, tmp_path / "none.png")
    assert rings(figure.axes[0]) == 6


@pytest.mark.parametrize("groups", [1, 3, 60])
def test_labels_of_rows_and_legend_do_not_overlap_and_lie_inside(groups):
    figure = sensitivity_bars(report([f"{'layer_' * 9}{i}" for i in range(groups)]))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    for above, below in itertools.pairwise(boxes):
        assert above.y0 >= below.y1
    legend, title = axes.get_legend().get_window_extent(), axes._left_title.get_window_extent()
    assert axes.get_window_extent().y1 <= legend.y0
    assert legend.y1 <= title.y0 + 1
    assert title.y1 <= figure.bbox.y1
    assert min(box.x0 for box in boxes) >= 0


def test_settings_of_the_user_neither_change_the_picture_nor_are_changed(tmp_path):
    def pixels(name):
        write_png(sensitivity_bars(report()), tmp_path / name)
        return np.asarray(Image.open(tmp_path / name))

    plain = pixels("plain.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": True}):
        theirs = dict(matplotlib.rcParams)
        np.testing.assert_array_equal(pixels("set.png"), plain)
        assert dict(matplotlib.rcParams) == theirs


def test_no_figure_is_left_with_pyplot(tmp_path):
    write_png(sensitivity_bars(report()), tmp_path / "bars.png")
    svg(sensitivity_bars(report()), "bars")
    assert pyplot.get_fignums() == []


def test_a_very_tall_picture_gets_fewer_dots(tmp_path):
    with own_style():
        figure = new_figure(1.0, 1000.0)
    write_png(figure, tmp_path / "tall.png")
    with Image.open(tmp_path / "tall.png") as image:
        assert image.height == 60_000


def test_an_svg_refers_to_nothing_but_itself_and_takes_the_page_s_colours():
    text = svg(sensitivity_bars(report()), "bars")
    assert text.startswith('<svg role="img" aria-label="bars"')
    assert "http" not in text
    assert "currentColor" in text
    assert "var(--grid)" in text
    assert "#24292f" not in text


def test_without_matplotlib_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EdgeqError, match=r'pip install "keras_edgeq\[plot\]"'):
        sensitivity_bars(report())
