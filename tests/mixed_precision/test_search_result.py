import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from keras_edgeq import files
from keras_edgeq.errors import ExportError
from keras_edgeq.mixed_precision.search_result import MOST_ROWS, Point
from keras_edgeq.plan.quant_plan import QuantPlan
from tests.mixed_precision.results import CANDIDATES, NAMES, point, report, result, small_sim

VOID = {"meta", "br"}
SUFFIXES = [".html", ".json", ".png"]


class Page(HTMLParser):
    """Checks that tags close in order, and gathers what a reader sees and what a browser loads."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.cells, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if "td" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def sim():
    return small_sim()


@pytest.fixture(scope="module")
def found(sim):
    return result(sim)


@pytest.fixture(scope="module")
def saved(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "search.html"
    found.save(path)
    return path.read_text(encoding="utf-8")


def test_a_point_comes_back_from_json(found):
    for one in found.points:
        assert Point(**json.loads(json.dumps(one.to_json()))) == one


def test_json_holds_the_values_and_the_plan(found, tmp_path):
    found.save(tmp_path / "search.json")
    values = json.loads((tmp_path / "search.json").read_text("utf-8"))
    assert values == found.to_json()
    assert QuantPlan.from_json(values["plan"]) == found.plan
    assert [Point(**one) for one in values["points"]] == list(found.points)
    assert values["best"] == found.best.to_json()
    assert values["sensitivity"]["groups"][0]["losses"] == {"W4A8": 2e-3, "W8A8": 0.0}
    assert (values["cost"], values["evaluations"], values["passes"]) == ("size", 7, 6.5)


def test_numbers_that_json_lacks_become_null(found, tmp_path):
    endless = replace(found, best=replace(found.best, predicted=np.inf))
    endless.save(tmp_path / "search.json")
    assert json.loads((tmp_path / "search.json").read_text("utf-8"))["best"]["predicted"] is None


def test_the_page_needs_nothing_from_elsewhere(saved):
    page = Page(saved)
    assert "script" not in page.tags
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert page.links
    assert all(link.startswith("#") for link in page.links)
    for word in ("http:", "https:", "src=", "url(http", "@import"):
        assert word not in saved
    for target in page.links:
        assert f'id="{target[1:]}"' in saved


def test_the_page_tells_what_was_found_in_numbers_and_pictures(saved, found):
    page = Page(saved)
    assert page.tags.count("svg") == 3
    text = " ".join(page.words)
    for told in (
        f"Mixed precision for {found.model.name}",
        "Target litert_int8, candidates W4A8, W8A8, W8A16.",
        "Found 2 × W4A8, 1 × W8A8: 6,666 bytes of weights, 66.7 % of 8-bit weights; "
        "SQNR 23.0 dB measured (25.2 dB predicted); score 0.875.",
        "7 choices were measured in 6.5 forward passes",
    ):
        assert told in text


def test_names_are_escaped_and_every_group_and_point_has_a_row(saved):
    assert "conv<1>" not in saved
    assert "conv&lt;1&gt;&amp;" in saved
    cells = Page(saved).cells
    first = cells.index(NAMES[0])
    assert cells[first : first + 6] == [NAMES[0], "Conv2D", "W4A8", "0.002", "0", "-"]
    assert set(NAMES) <= set(cells)
    assert [cells.count(size) for size in ("50.0", "66.7", "83.3", "100.0")] == [1, 1, 1, 1]
    assert saved.count('<tr class="mark">') == 1


def test_ids_inside_a_page_are_unique(saved):
    ids = [part.split('"', 1)[0] for part in saved.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_pictures_are_not_blank(found, tmp_path):
    for name, one in (("search.png", found), ("bars.png", found.sensitivity)):
        one.save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            image.load()
            pixels = np.asarray(image.convert("RGB")).astype(np.int32) @ [1, 256, 65536]
        colours, counts = np.unique(pixels, return_counts=True)
        assert len(colours) > 20
        assert 0.02 < 1 - counts.max() / counts.sum() < 0.6


def test_a_report_of_sensitivities_saves_itself_too(tmp_path):
    one = report()
    one.save(tmp_path / "bars.html")
    page = Page((tmp_path / "bars.html").read_text("utf-8"))
    assert page.tags.count("svg") == 1
    assert set(NAMES) <= set(page.cells)
    one.save(tmp_path / "bars.json")
    assert json.loads((tmp_path / "bars.json").read_text("utf-8")) == one.to_json()


@pytest.mark.parametrize(
    ("measure", "cost"),
    [("sqnr", "bitops"), ("gradient", "size"), ("kl", "activation_memory"), ("score", "size")],
)
def test_every_measure_and_cost_can_be_saved_and_printed(sim, tmp_path, measure, cost):
    one = result(sim, measure=measure, cost=cost)
    one.save(tmp_path / "search.html")
    assert f"Found {one.found()}" in Page((tmp_path / "search.html").read_text("utf-8")).words
    assert str(one).startswith(f"Found {one.found()}")


@pytest.mark.parametrize("name", ["search.gif", "search", "search.HTML"])
def test_another_suffix_is_an_error_that_lists_those_there_are(found, tmp_path, name):
    with pytest.raises(ExportError, match=r"\.html, \.json, \.png"):
        found.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_is_full_leaves_the_older_file_and_no_scraps(
    found, tmp_path, monkeypatch, suffix
):
    path = tmp_path / f"search{suffix}"
    path.write_text("older")

    def full(new, old):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(ExportError, match="No space left on device"):
        found.save(path)
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_none_cannot_be_written_into(found, tmp_path, suffix):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="Cannot write"):
        found.save(tmp_path / "file" / f"search{suffix}")


def test_printing_marks_the_chosen_point(found):
    lines = str(found).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == ["66.7"]
    assert len(lines) == 4 + len(found.points)
    assert "they say 2.2 dB more" in lines[-1]


def test_printing_a_long_curve_is_short_and_keeps_ends_and_choice(sim):
    names = [f"conv{i}" for i in range(50)]
    one = result(sim, names)
    lines = str(one).splitlines()
    assert lines[-2] == f"({MOST_ROWS + 1} of 51 points)"
    sizes = [line.replace("*", " ").split()[0] for line in lines[3:-2]]
    assert sizes[0] == "50.0"
    assert sizes[1] == f"{100 * one.best.size:.1f}"
    assert sizes[-1] == "100.0"


def test_a_choice_beside_the_curve_is_shown_among_its_points(found):
    beside = replace(point(NAMES, 1), choice=dict.fromkeys(NAMES, CANDIDATES[2]))
    one = replace(found, best=beside)
    assert one.curve[3] is beside
    assert "3 × W8A16" in str(one)
    assert one.curve[:3] == found.points[:3]
