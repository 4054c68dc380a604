import pytest

from keras_edgeq_cli import main


@pytest.mark.slow
def test_the_demo_trains_and_every_exported_file_does_what_the_sim_said(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = {line[:14].strip(): line for line in out.splitlines() if "," in line or "sim" in line}
    assert {"float model", "sim", "LiteRT xnnpack", "LiteRT builtin", "ONNX Runtime"} <= set(rows)
    assert float(rows["float model"].split()[2]) > 95.0
    assert (tmp_path / "model.tflite").exists()
