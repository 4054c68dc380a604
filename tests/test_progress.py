"""Bars go on where they were; what takes long is said once, as the first units went."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq import progress
from keras_edgeq.progress import Bar, duration, each
from tests.models import inputs_for, make


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_items_come_through_and_a_hidden_bar_says_nothing(capsys):
    assert list(each(range(3), "work", "item", shown=False)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert list(each(range(3), "work", "item")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "about" not in err


def test_long_work_is_said_once_by_the_units_after_the_first(clock, capsys):
    for number in each(range(10), "gptq", "layer"):
        clock[0] += 20.0 if number == 0 else 5.0  # the first one is traced
    err = capsys.readouterr().err
    assert err.count("gptq: about") == 1
    assert "gptq: about 60 seconds in all" in err  # 20 s and nine times 5 s are 65 s


def test_the_first_of_many_units_are_not_judged_by(clock, capsys):
    for number in each(range(50), "gptq", "layer"):
        clock[0] += 1.0 if number < 4 else 10.0
    assert "gptq: about 3 minutes in all, as the first 10 % went" in capsys.readouterr().err


def test_units_count_by_their_work(clock, capsys):
    work = [1.0] * 10 + [90.0]
    for number in each(range(11), "gptq", "layer", work=work):
        if number == 10:
            said = capsys.readouterr().err
            assert "gptq: about 3 minutes in all, as the first 10 % went" in said
        clock[0] += 2.0 * work[number]


def test_short_work_is_not_announced(clock, capsys):
    for _ in each(range(10), "observe", "batch"):
        clock[0] += 2.0
    assert "about" not in capsys.readouterr().err


def test_a_first_unit_that_is_long_itself_is_enough(clock, capsys):
    for number in each(range(10), "adaround", "unit"):
        clock[0] += 60.0
        if number == 1:
            assert "adaround: about 10 minutes in all" in capsys.readouterr().err


def test_work_that_grows_goes_on_in_one_bar(clock, capsys):
    bar = Bar("sensitivity", 4.0)
    bar.to(1.0)
    clock[0] += 10.0
    bar.to(2.0, total=8.0, name="search")
    bar.to(3.0, total=5.0)  # never less
    bar.to(9.0)  # nor more than all
    bar.close()
    err = capsys.readouterr().err
    assert err.count("search: about 70 seconds in all") == 1
    assert "100%" in err.splitlines()[-1]
    shares = [int(part.split("%")[0].split()[-1]) for part in err.split("\r") if "%" in part]
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (34, "30 seconds"),
        (89, "90 seconds"),
        (100, "2 minutes"),
        (5000, "83 minutes"),
        (9000, "2.5 hours"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_a_search_has_one_bar(capsys, monkeypatch):
    made = []
    monkeypatch.setattr(
        "keras_edgeq.measure.evaluator.Bar", lambda *a, **k: made.append(Bar(*a, **k)) or made[-1]
    )
    tf_keras.utils.set_random_seed(0)
    model = make("one_channel")
    x = inputs_for(model)
    sim = eq.quantize(model, x, progress=False)
    found = eq.search_mixed_precision(sim, x, size=0.9)
    assert found.evaluations > 2
    assert len(made) == 1
    assert np.isclose(made[0]._bar.n, made[0]._bar.total)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "search: 100%" in shown.err
    assert shown.err.count("\n") == 1  # a bar that begins anew begins a line
