"""The page of a diagnosis in Chromium: every plot drawn, no error, links, sorting and keys."""

import pytest

import keras_edgeq as eq
from tests.browser import Browser, program
from tests.diagnose.by_hand import HOSTILE, diagnosis
from tests.models import inputs_for, make

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="no Chromium here: apt-get install chromium"),
]
DRAWN = """[...document.querySelectorAll('.plot')].filter((one) => {
    const box = one.querySelector('svg.main-svg').getBoundingClientRect();
    const marks = one.querySelectorAll('.points path, .point path').length;
    return box.width > 200 && box.height > 100 && marks > 0; }).length"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser():
    with Browser() as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return number of layers -> page; names are long and hostile in places."""
    folder, made = tmp_path_factory.mktemp("pages"), {}
    for count in (30, 300):
        names = [f"stage{i}/a_block_of_some_length/conv" for i in range(count)]
        names[3] = HOSTILE
        made[count] = folder / f"{count}.html"
        diagnosis(names, HOSTILE, skip=4).save(made[count])
    return made


@pytest.mark.parametrize("count", [30, 300])
@pytest.mark.parametrize("dark", [False, True], ids=("light", "dark"))
@pytest.mark.parametrize("width", [1280, 390])
def test_every_plot_is_drawn_and_nothing_is_fetched(browser, pages, width, dark, count):
    browser.open(pages[count], width, 800, dark, phone=width < 500)
    assert browser.ask(DRAWN) == 4
    assert browser.errors == []
    assert browser.requests == [pages[count].resolve().as_uri()]
    # Tables scroll in their boxes; the page does not.
    assert browser.ask(WIDER) <= 0
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


def test_from_the_picture_to_a_row_and_back(browser, pages):
    browser.open(pages[30])
    browser.ask("document.querySelector('#node-20 a.name').click()")
    assert browser.ask("document.querySelector('tr:target').id") == "layer-20"
    browser.ask("document.querySelector('#layer-20 a').click()")
    assert browser.ask("document.querySelector('li:target').id") == "node-20"
    plot = "document.querySelector('#plot-depth')"
    browser.ask(f"{plot}.emit('plotly_click', {{points: [{{customdata: 'tensor-7'}}]}}); 0")
    assert browser.ask("document.querySelector('tr:target').id") == "tensor-7"


def test_tables_sort_by_key_and_say_so(browser, pages):
    browser.open(pages[30])
    head = "document.querySelector('#layer-0').closest('table').tHead.rows[0].cells[2]"
    column = (
        "[...document.querySelector('#layer-0').closest('tbody').rows]"
        ".map((row) => row.cells[2].textContent)"
    )
    browser.ask(f"{head}.querySelector('button').focus()")
    browser.press_enter()
    assert browser.ask(f"{head}.getAttribute('aria-sort')") == "descending"
    values = browser.ask(column)
    assert values[0] == "∞"
    known = [float(value.replace("∞", "inf")) for value in values if value]
    assert known == sorted(known, reverse=True)
    assert not any(values[len(known) :])
    browser.press_enter()
    values = browser.ask(column)
    known = [float(value.replace("∞", "inf")) for value in values if value]
    assert known == sorted(known)
    assert not any(values[len(known) :])


def test_a_plot_shows_what_is_chosen(browser, pages):
    browser.open(pages[30])
    browser.ask("document.querySelector('#tensor-12 a.show').click()")
    assert browser.ask("document.querySelector('#histograms').value") == "12"
    label = browser.ask("document.querySelector('#plot-histograms').getAttribute('aria-label')")
    assert label.startswith("stage12/")


def test_colours_follow_the_choice(browser, pages):
    browser.open(pages[30])
    colour = "getComputedStyle(document.querySelector('rect.own-5')).fill"
    before = browser.ask(colour)
    browser.ask("document.querySelector('#by-total').click()")
    shown = browser.ask("getComputedStyle(document.querySelector('#node-0 .of-total')).display")
    assert shown == "inline"
    assert before == "rgb(31, 95, 158)"


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_a_search_is_a_section_with_its_pictures(browser, tmp_path):
    model = make("residual")
    x = inputs_for(model, 16)
    sim = eq.quantize(model, x, progress=False)
    result = eq.search_mixed_precision(sim, x, ["W4A8", "W8A8"], size=0.8, progress=False)
    found = eq.diagnose(sim, x, remedies=0, progress=False)
    found.save(tmp_path / "page.html", search=result)
    browser.open(tmp_path / "page.html", 390, 800, dark=False, phone=True)
    assert browser.errors == []
    assert browser.ask(WIDER) <= 0
    headings = browser.ask("[...document.querySelectorAll('h2')].map((one) => one.textContent)")
    assert {"Search for mixed precision", "Sensitivity of each group"} <= set(headings)
    sizes = browser.ask(
        "[...document.querySelectorAll('figure svg[role=img]')].map((one) => one.clientWidth)"
    )
    assert len(sizes) == 3
    assert min(sizes) > 200
