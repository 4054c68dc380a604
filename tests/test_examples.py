"""Each public name has an example, and the examples do what they say."""

import doctest
import inspect
import re

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq

L = tf_keras.layers
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public():
    """Return the public names with what they stand for, those of public modules too."""
    found = {"keras_edgeq": eq}
    for name in eq.__all__:
        value = getattr(eq, name)
        found[name] = value
        if inspect.ismodule(value):
            inner = getattr(value, "__all__", [])
            found |= {f"{name}.{part}": getattr(value, part) for part in inner}
    return found


PUBLIC = public()
CALLABLE = [
    name
    for name, value in PUBLIC.items()
    if callable(value) and not (inspect.isclass(value) and issubclass(value, Exception | Warning))
]
# A list, because one object may have two names: eq.SensitivityReport and that of analysis.
EXAMPLES = {
    example.name: example
    for name, value in PUBLIC.items()
    for example in doctest.DocTestFinder(recurse=inspect.isclass(value)).find(
        value, value.__name__ if inspect.ismodule(value) else name, globs={}
    )
    if example.examples
}


@pytest.fixture(scope="module")
def names():
    """What the examples take for granted: a model with a batch norm, its sim, and data."""
    tf_keras.utils.set_random_seed(0)
    layers = [
        tf_keras.Input((6, 6, 2), name="image"),
        L.Conv2D(4, 3, use_bias=False, name="conv"),
        L.BatchNormalization(name="norm"),
        L.ReLU(name="relu"),
        L.Flatten(name="flatten"),
        L.Dense(3, name="head"),
    ]
    model = tf_keras.Sequential(layers, name="net")
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 6, 6, 2)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    y = np.asarray(model.predict(data, verbose=0))
    return {
        "eq": eq, "np": np, "tf_keras": tf_keras, "model": model, "sim": sim, "data": data,
        "calibration": data, "x": data, "y": y, "test_x": data[:8], "test_y": y[:8],
    }  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = EXAMPLES[name]
    # Training changes a sim; each example has its own.
    names = dict(names)
    if "fit(" in example.docstring or "train(" in example.docstring:
        names["sim"] = eq.requantize(names["sim"], check=False)
        names["sim"].compile(tf_keras.optimizers.Adam(1e-4), "mse")
    owner = inspect.getmodule(PUBLIC.get(name.split(".")[0], eq))
    example.globs = {**vars(owner), **names}
    said = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    failed = runner.run(example, out=said.append).failed
    assert not failed, "".join(said)


@pytest.mark.parametrize("name", CALLABLE)
def test_a_public_name_has_an_example_that_runs(name):
    doc = inspect.getdoc(PUBLIC[name]) or ""
    assert ">>>" in doc
    assert "+SKIP" not in doc


def test_the_list_of_public_names_is_complete_and_all_that_dir_shows():
    assert sorted(set(eq.__all__)) == eq.__all__
    assert all(hasattr(eq, name) for name in eq.__all__)
    assert sorted(dir(eq)) == sorted([*eq.__all__, "__version__"])
    named = ((name, getattr(value, "__module__", "")) for name, value in vars(eq).items())
    own = {name for name, module in named if module.startswith("keras_edgeq.")}
    assert own <= set(eq.__all__)


def test_what_public_functions_return_has_a_public_name():
    returned = {
        word
        for name in CALLABLE
        if inspect.isfunction(PUBLIC[name])
        for word in re.findall(r"\w+", str(inspect.signature(PUBLIC[name]).return_annotation))
    }
    plain = {"None", "Any", "list", "str", "tuple", "type", "tf_keras", "Model"}
    names = {name.rpartition(".")[2] for name in PUBLIC}
    assert returned - plain <= names
