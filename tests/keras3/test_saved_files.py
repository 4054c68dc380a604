"""Files that a version of Keras 3 wrote once: loaded, quantized, exported, and given back."""

from pathlib import Path

import numpy as np
import pytest

import keras_edgeq as eq

keras = pytest.importorskip("keras", minversion="3.0")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras 3 with NumPy 2
FILES = Path(__file__).parent / "files"
SUFFIXES = ("keras", "h5")


def known():
    """Return images, and what the model made of them when it was saved."""
    with np.load(FILES / "transfer.npz") as file:
        return file["images"].astype("float32"), file["outputs"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_computes_what_the_model_did(suffix):
    images, outputs = known()
    model = eq.load_model(FILES / f"transfer.{suffix}")
    np.testing.assert_allclose(model(images, training=False), outputs, atol=1e-5)
    assert {"base", "augment", "normalize"} <= {layer.name for layer in model.layers}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_its_weights_go_back_bit_by_bit(suffix):
    original = keras.models.load_model(FILES / f"transfer.{suffix}")
    back = eq.to_keras3(eq.load_model(FILES / f"transfer.{suffix}"), like=original)
    assert [w.path for w in back.weights] == [w.path for w in original.weights]
    for one, other in zip(back.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    images, outputs = known()
    np.testing.assert_allclose(back(images, training=False), outputs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_it_is_quantized_exported_and_verified(suffix, tmp_path):
    images = np.random.default_rng(0).uniform(0.0, 255.0, (64, 16, 16, 3)).astype("float32")
    sim = eq.quantize(eq.load_model(FILES / f"transfer.{suffix}"), images, progress=False)
    assert sim.record.fidelity is not None
    assert sim.record.fidelity.outputs[0].sqnr_db > 25.0
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], progress=False)
    assert not report.failed
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}
    assert not report.float_layers
