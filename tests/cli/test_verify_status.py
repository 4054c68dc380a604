"""`keras-edgeq verify` ends with a status that a build can depend on."""

from argparse import Namespace

import pytest

import keras_edgeq as eq
from keras_edgeq.cli import verify
from keras_edgeq.runtime.run_report import RunReport, failed_run


def report(verdict):
    if verdict == "failed":
        return failed_run("model.onnx", "ONNX Runtime", 4, True, "ONNX Runtime ended with SIGABRT.")
    return RunReport("model.onnx", "ONNX Runtime", 4, True, max_abs_difference=0.0, verdict=verdict)


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["same", "kernel"], 0),
        (["same", "amplified"], 1),
        (["file"], 1),
        (["runtime"], 1),
        (["differs", "same"], 1),
        (["failed"], 1),
    ],
)
def test_a_verdict_that_does_not_agree_is_status_1(monkeypatch, verdicts, status):
    monkeypatch.setattr(eq, "load_sim", lambda *_, **__: None)
    monkeypatch.setattr(eq, "verify", lambda *_: tuple(report(one) for one in verdicts))
    asked = Namespace(sim="sim.keras", artifacts=["model.onnx"], data=None, allow_lambda=False)
    result = verify.run(asked)
    assert result.status == status
    lines = result.text.splitlines()
    assert [line.startswith("agrees") for line in lines] == [
        one in ("same", "kernel") for one in verdicts
    ]
