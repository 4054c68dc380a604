"""`Fidelity` in JSON, which has no infinity and no NaN."""

import json
import math

import pytest

from keras_edgeq.spec.fidelity import Fidelity, OutputFidelity, TensorError, finite_db


def test_json_tells_apart_what_differs_nowhere_and_what_has_no_signal():
    made = finite_db({"same": math.inf, "silent": -math.inf, "unknown": math.nan, "rest": [(1.5,)]})
    assert made == {"same": None, "silent": -1e9, "unknown": None, "rest": [[1.5]]}


@pytest.mark.parametrize("value", [12.5, math.inf, -1e9])
def test_what_was_written_is_read_back(value):
    outputs = (OutputFidelity("head", value, None), OutputFidelity("more", 3.0, 50.0))
    written = Fidelity(8, True, outputs, (TensorError("head", value, 1.0, value),))
    text = json.dumps(written.to_json(), allow_nan=False)
    assert Fidelity.from_json(json.loads(text)) == written
