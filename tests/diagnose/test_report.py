"""The page of a diagnosis: what it holds, that it is safe and whole, and its overlay."""

import json
import re
import sys
from html import unescape
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

import keras_edgeq as eq
from keras_edgeq.analysis.sensitivity_report import SensitivityReport
from keras_edgeq.diagnose.page.library import plotly_js
from keras_edgeq.diagnose.page.network import lanes
from keras_edgeq.diagnose.page.report import report_page
from keras_edgeq.diagnose.rows import GraphLayer
from keras_edgeq.measure.groups import Group
from tests.diagnose.by_hand import HOSTILE, diagnosis

NAMES = ["first", "second", "third", "fourth"]


class Tags(HTMLParser):
    """All tags of a page with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a page without the library in it."""
    path = tmp_path_factory.mktemp("page") / "x.html"
    diagnosis(NAMES).save(path)
    text = path.read_text("utf-8")
    assert plotly_js() in text
    return text.replace(plotly_js(), "")


def values(text):
    return json.loads(re.search(r'id="figures">(.*?)</script>', text)[1])


def test_a_page_holds_every_layer_finding_and_number(saved):
    page = Tags(saved)
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    for kind, count in (("node", 4), ("layer", 4), ("tensor", 4), ("weights", 4), ("finding", 3)):
        wanted = {f"{kind}-{i}" for i in range(count)} - {"finding-0"}
        assert wanted <= ids
    text = " ".join(page.text)
    for told in (*NAMES, "second keeps 5 dB.", "Look at second.", "+4.0", "first cannot",
                 'eq.requantize(sim, precision={**sim.record.precision, "second": "W8A16"})',
                 "0.75", "16,384", "4,096", "1 dead of 8"):  # fmt: skip
        assert told in text, told


def test_every_link_leads_somewhere(saved):
    page = Tags(saved)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert {link[1:] for link in links} <= set(ids)
    assert all(link.startswith("#") for link in links)


def test_a_page_names_nothing_to_fetch(saved):
    assert "://" not in saved
    assert "default-src 'none'" in unescape(saved)
    page = Tags(saved)
    assert not [tag for tag in page.tags if "src" in tag[1] or tag[0] in ("link", "iframe")]


def test_pictures_say_in_words_what_they_show(saved):
    told = [attrs["aria-label"] for _, attrs in Tags(saved).tags if attrs.get("role") == "img"]
    assert len(told) == 5
    assert all(len(one) > 20 for one in told)


def test_names_are_text_everywhere(saved):
    names = [f"{HOSTILE}{i}" for i in range(4)]
    text = report_page(diagnosis(names, model=HOSTILE)).replace(plotly_js(), "")
    page = Tags(text)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Tags(saved).tags]
    assert HOSTILE not in text
    shown = [attrs["title"] for tag, attrs in page.tags if attrs.get("class") == "name"]
    assert shown == names
    drawn = json.dumps([figure["data"] for figures in values(text).values() for figure in figures])
    assert "<b>" not in drawn
    assert "&lt;b&gt;" in drawn


def test_plots_are_those_of_plotly(saved):
    drawn = values(saved)
    assert {name: len(figures) for name, figures in drawn.items()} == {
        "depth": 1, "switches": 1, "histograms": 4, "ranges": 4,
    }  # fmt: skip
    for figures in drawn.values():
        for figure in figures:
            go.Figure(figure["data"], figure["layout"])
    ends = [shape["x0"] for shape in drawn["histograms"][0]["layout"]["shapes"]]
    assert ends == [-0.5, 1.5]
    bars = drawn["ranges"][0]["data"]
    assert [len(one["x"]) for one in bars] == [8, 8]
    assert len(drawn["ranges"][1]["data"]) == 1


def test_edges_cross_no_layer():
    graph = diagnosis([f"l{i}" for i in range(40)], skip=4).graph
    at, place = lanes(graph), {one.layer: i for i, one in enumerate(graph)}
    for i, one in enumerate(graph):
        for name in one.reads:
            between = range(place[name] + 1, i)
            assert all(at[j] != at[place[name]] for j in between), (name, one.layer)


def test_a_branch_leaves_its_lane_and_comes_back():
    rows = (("x", ()), ("a", ("x",)), ("b", ("a",)), ("add", ("x", "b")), ("y", ("add",)))
    graph = [GraphLayer(name, "Op", reads, (), 0) for name, reads in rows]
    assert lanes(graph) == [0, 1, 1, 0, 0]


def test_a_sensitivity_is_a_section_and_escaped(tmp_path):
    group = Group(HOSTILE, "Conv2D", ("W4A8", "W8A8"))
    report = SensitivityReport(
        (group,), ("W4A8", "W8A8"), "sqnr", "W8A8", np.array([[0.1, 0.0]]), 0.01, 1.0, 1.0
    )
    text = report_page(diagnosis(NAMES), sensitivity=report).replace(plotly_js(), "")
    assert "Groups at other precisions" in text
    assert HOSTILE not in text
    with pytest.raises(eq.EdgeqError, match=r"Only a page has sections"):
        diagnosis(NAMES).save(tmp_path / "x.json", sensitivity=report)
    assert not list(tmp_path.iterdir())


def test_without_plotly_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(eq.EdgeqError, match=r'pip install "keras_edgeq\[report\]"'):
        diagnosis(NAMES).save(tmp_path / "x.html")
    assert not list(tmp_path.iterdir())


def test_an_overlay_has_the_names_of_tensors(tmp_path):
    found = diagnosis([f"l{i}" for i in range(8)])
    found.save(tmp_path / "x.overlay.json")
    made = json.loads((tmp_path / "x.overlay.json").read_text())
    assert made["results"]["l0"] == {"value": 5.0}
    # l5 is exact, l6 was not measured.
    assert set(made["results"]) == {"l0", "l1", "l2", "l3", "l4", "l7"}
    ends = [one["value"] for one in made["thresholds"]]
    assert ends == sorted(ends)
    found.save(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["model"] == "model"
