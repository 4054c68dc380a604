"""What results look like where people meet them: a prompt, `print`, a notebook."""

from html.parser import HTMLParser

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.table import brief, counted, html, span
from tests.mixed_precision.results import result

L = tf_keras.layers
ODD = "a>b.c"


@tf.function
def twice(t):
    return t * 2.0


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """An object of each kind that a user is given."""
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((6, 6, 2), name="image")
    x = L.Conv2D(4, 3, activation="relu", name=ODD)(image)
    x = L.Lambda(lambda t: twice(t), name="twice")(L.Flatten()(x))
    model = tf_keras.Model(image, L.Dense(3, name="head")(x), name="tiny")
    data = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    folder = tmp_path_factory.mktemp("shown")
    report = eq.export(sim, folder, ["tflite"], progress=False)
    plan = sim.record.plan
    asked = plan.with_bits("head", weights=4)
    narrow = eq.requantize(sim, plan=asked)
    found = result(sim)
    trained = eq.qat.train(
        eq.requantize(sim), (data, np.zeros((32, 3), np.float32)), loss="mse", epochs=1,
        progress=False,
    )  # fmt: skip
    grids = eq.grids(sim)
    quiet = {"runs": 3, "progress": False}
    compared = eq.compare(model, sim, report.files["tflite"], data=data, **quiet)
    diagnosis = eq.diagnose(sim, data, remedies=0, verify=False, progress=False)
    return {
        "benchmark": eq.benchmark(report.files["tflite"], **quiet),
        "validation": eq.validate(
            report.files["tflite"], (data, np.zeros((32, 3))), "mse", progress=False
        ),
        "comparison": compared,
        "candidate": compared.candidates[2],
        "latency": compared.candidates[2].latency,
        "diagnosis": diagnosis,
        "finding": diagnosis.findings[0],
        "tensor": diagnosis.tensors[0],
        "weights": diagnosis.weights[0],
        "sim": sim,
        "record": sim.record,
        "plan": plan,
        "asked": asked,
        "diff": plan.diff(narrow.record.plan),
        "no diff": plan.diff(plan),
        "description": eq.describe(model),
        "stats": sim.stats,
        "fidelity": sim.record.fidelity,
        "grids": grids,
        "grid": grids[f"{ODD}/kernel"],
        "report": report,
        "run": report.runs[0],
        "search": found,
        "sensitivity": found.sensitivity,
        "training": trained,
        "profile": sim.record.profile,
        "precision": sim.record.profile.own,
        "kernel": plan.kernels["head"],
        "encoding": sim.quantizers()["image"].encoding,
        "quantizer": sim.quantizers()["image"],
        "layer": sim.quantized_layers()["head"],
    }


KINDS = [
    "sim",
    "record",
    "plan",
    "asked",
    "diff",
    "description",
    "stats",
    "fidelity",
    "grids",
    "grid",
    "report",
    "run",
    "search",
    "sensitivity",
    "training",
    "benchmark",
    "validation",
    "comparison",
    "candidate",
    "latency",
    "diagnosis",
    "finding",
    "tensor",
    "weights",
    "profile",
    "precision",
    "kernel",
    "encoding",
    "quantizer",
    "layer",
]
TABLES = {
    "plan": f"{ODD}/kernel  weight",
    "asked": "asked for, not resolved: head: W4A8",
    "diff": "head/kernel  int8",
    "description": f"{ODD}/relu",
    "stats": "image",
    "fidelity": "SQNR to float",
    "grids": f"{ODD}/bias",
    "report": "float: twice: Lambda",
    "search": "measured SQNR, dB",
    "sensitivity": "W8A16",
    "training": "epoch  loss",
    "benchmark": "latency",
    "validation": "mse",
    "comparison": "SQNR, dB",
    "diagnosis": "remedy",
}
IN_NOTEBOOKS = (
    "sim plan diff description stats fidelity grids report run search sensitivity training "
    "benchmark validation comparison diagnosis"
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repr_is_one_line_that_says_what_it_is(kind, shown):
    text = repr(shown[kind])
    assert text.startswith("<")
    assert text.endswith(">")
    assert "\n" not in text
    assert "object at 0x" not in text
    assert "mappingproxy" not in text
    assert len(text) < 300


def test_a_sim_says_target_layers_bits_bytes_and_closeness(shown):
    sim, report = shown["sim"], shown["report"]
    text = repr(sim)
    layers = f"{len(report.integer_layers)} layers in integers, {len(report.float_layers)} in float"
    facts = ["litert_int8", "W8A8", layers, f"{report.weight_bytes:,} bytes", " dB"]
    assert all(fact in text for fact in facts)
    assert str(sim) == text


def test_a_sim_of_several_precisions_counts_them(shown):
    assert "1 × W4A8" in repr(eq.requantize(shown["sim"], plan=shown["asked"]))


def test_a_sim_can_be_shown_inside_a_graph(shown):
    import tensorflow as tf

    seen = []
    tf.function(lambda: seen.append((repr(shown["sim"]), repr(shown["quantizer"]))))()
    assert "litert_int8" in seen[0][0]
    assert "'image'" in seen[0][1]


@pytest.mark.parametrize("kind", TABLES)
def test_print_shows_a_table(kind, shown):
    text = str(shown[kind])
    assert TABLES[kind] in text
    assert len(text.splitlines()) > 1


def test_two_equal_plans_print_that_nothing_differs(shown):
    assert str(shown["no diff"]) == "no difference"
    assert "no difference" not in str(shown["diff"])


class Tags(HTMLParser):
    """Checks that what is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        assert not {name for name, _ in attrs} - {"class", "style"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("kind", IN_NOTEBOOKS.split())
def test_a_notebook_gets_plain_tables_in_its_own_colours(kind, shown):
    text = shown[kind]._repr_html_()
    assert Tags(text).words
    assert "color" not in text
    assert "background" not in text


@pytest.mark.parametrize("kind", ["plan", "description", "grids", "stats", "diff"])
def test_names_are_escaped(kind, shown):
    if kind == "diff":
        text = html("<b>", [("<i>", "&"), ("<u>", "1")], "<s>")
    else:
        text = shown[kind]._repr_html_()
        assert "a&gt;b.c" in text
    assert not {"<b>.c", "<i>", "<u>", "<s>"} & set(Tags(text).open)
    assert ODD not in text
    assert "<u>" not in text


def test_small_helpers():
    assert brief("Plan", "a", "", "b") == "<Plan: a, b>"
    assert counted(1, "layer") == "1 layer"
    assert counted(2_000, "layer") == "2,000 layers"
    assert span(1.0, 1.0) == "1"
    assert span(0.25, 3) == "0.25 to 3"
    numbers = html("", [("n",), ("1,000",), ("-",), ("3.5 dB",)])
    assert "text-align" not in numbers
    assert "text-align:left" in html("", [("n",), ("x",)])
