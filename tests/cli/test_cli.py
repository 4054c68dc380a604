"""The command as a user calls it: real files, real runtimes, exit statuses and messages."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.cli.arguments import COMMANDS
from keras_edgeq_cli import main

L = tf_keras.layers


@tf.function
def twice(t):
    """A function that no symbolic call follows."""
    return t * 2.0


def tiny(*extra):
    layers = [
        tf_keras.Input((6, 6, 2), name="image"),
        L.Conv2D(4, 3, activation="relu", name="conv"),
        L.Flatten(),
        *extra,
        L.Dense(3, name="head"),
    ]
    return tf_keras.Sequential(layers, name="tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and inputs on disk, and the tiny model quantized into `out`."""
    tf_keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("cli")
    model = tiny()
    model.save(folder / "tiny.keras")
    model.save(folder / "tiny.h5")
    rng = np.random.default_rng(0)
    np.savez(folder / "x.npz", image=rng.normal(size=(64, 6, 6, 2)).astype(np.float32))
    np.save(folder / "wide.npy", np.zeros((64, 5), np.float32))
    wide = tf_keras.Sequential([tf_keras.Input((5,)), L.Dense(2)])
    wide.save(folder / "wide.keras")
    tiny(L.Lambda(lambda t: twice(t), name="twice")).save(folder / "lambda.h5")
    status = main(quantize(folder, "tiny.keras", "out", "--verify", str(folder / "x.npz")))
    assert status == 0
    return folder


def quantize(folder, model, out, *options, calibration="x.npz"):
    paths = [str(folder / model), "--calibration", str(folder / calibration)]
    return ["quantize", *paths, "--out", str(folder / out), *options]


def fails(capsys, args, *words):
    """Check that a command ends with status 2 and one line that holds `words`."""
    assert main(args) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("keras-edgeq: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    for word in words:
        assert word in lines[0]


# Each ends before TensorFlow would be imported.
LIGHT = {
    "--help": 0,
    "--version": 0,
    "quantize --version": 0,
    "verify --help": 0,
    "profiles": 0,
    "profiles --json": 0,
    "profiles --show litert_int8": 0,
    "profiles --show litert_int": 2,
    "profile": 2,
    "quantize": 2,
    "inspect MODEL --profil litert_int9": 2,
    "inspect MODEL --precision W5A5": 2,
    "inspect no.keras": 2,
    "quantize MODEL --out out --calibration no.npz": 2,
    "quantize MODEL --out out --calibration MODEL/x.npz": 2,
    "quantize MODEL --out out --formats onx": 2,
    "quantize MODEL --out out --verify text": 2,
    "quantize MODEL --out MODEL/out": 2,
    "quantize text --out out": 2,
    "verify MODEL no.tflite": 2,
    "grids MODEL --csv .": 2,
    "validate MODEL --metric accuracy": 2,
    "validate no.tflite --metric accuracy --data x.npz": 2,
    "compare MODEL MODEL no.onnx --data x.npz": 2,
    "benchmark no.tflite": 2,
    "benchmark MODEL --kernels xnpack": 2,
    "benchmark MODEL --sizes 1,x": 2,
    "diagnose MODEL --data no.npz": 2,
}
SPY = """import atexit, sys
atexit.register(lambda: open("imported", "w").write(str("tensorflow" in sys.modules)))
"""


def started(line, folder, tmp_path, module="keras_edgeq"):
    """Run the command as users start it, where nothing is set for TensorFlow."""
    (tmp_path / "sitecustomize.py").write_text(SPY)
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{os.getcwd()}"
    args = line.replace("MODEL", str(folder / "tiny.keras")).split()
    command = [sys.executable, "-m", module, *args]
    kept = {"capture_output": True, "text": True, "check": False}
    return subprocess.run(command, **kept, env=environment, cwd=tmp_path)


@pytest.mark.parametrize("line", LIGHT)
def test_what_needs_no_tensorflow_does_not_wait_for_it(line, folder, tmp_path):
    (tmp_path / "text").write_text("neither a model nor arrays")
    module = "keras_edgeq_cli" if len(line) % 2 else "keras_edgeq"
    ran = started(line, folder, tmp_path, module)
    assert (tmp_path / "imported").read_text() == "False"
    assert ran.returncode == LIGHT[line]
    assert not (tmp_path / "out").exists()
    if ran.returncode:
        assert ran.stdout == ""
        assert len(ran.stderr.splitlines()) == 1
        assert ran.stderr.startswith("keras-edgeq")
    else:
        assert ran.stderr == ""


def test_help_lists_the_commands_and_the_exit_statuses(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"    {name}" in out for name in COMMANDS)
    assert all(f"  {status}  " in out for status in (0, 1, 2, 130))


@pytest.mark.slow
def test_log_lines_of_tensorflow_are_shown_when_asked_for(folder, tmp_path):
    quiet = started("inspect MODEL", folder, tmp_path)
    assert quiet.returncode == 0
    assert quiet.stderr == ""
    loud = started("inspect MODEL --verbose", folder, tmp_path)
    assert loud.stdout == quiet.stdout
    assert "oneDNN" in loud.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_and_a_module(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert command in capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_in_a_process_of_its_own_is_one_line_and_status_2(tmp_path):
    command = [sys.executable, "-m", "keras_edgeq_cli", "inspect", str(tmp_path / "no.keras")]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "keras-edgeq: No such model" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_profiles_are_listed_with_their_descriptions(capsys):
    assert main(["profiles"]) == 0
    out = capsys.readouterr().out
    assert "litert_int8" in out
    assert "ONNX Runtime" in out


def test_one_profile_is_shown_as_json(capsys):
    assert main(["profiles", "--show", "qnn_w8a8"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "qnn_w8a8"


@pytest.mark.slow
def test_inspect_shows_each_layer_and_the_sum(folder, capsys):
    assert main(["inspect", str(folder / "tiny.keras")]) == 0
    out = capsys.readouterr().out
    assert "conv/relu" in out
    assert "3 of 3 layers compute in integers, 1 more" in out


def test_quantize_writes_the_sim_and_all_formats(folder):
    out = folder / "out"
    files = {"sim.keras", "sim.stats.npz", "model.tflite", "model.onnx", "model.aimet"}
    files |= {"model.encodings.json", "saved_model", "model_float.keras", "report.json"}
    assert files <= {path.name for path in out.iterdir()}
    runs = json.loads((out / "report.json").read_text())["runs"]
    assert {run["runtime"] for run in runs} >= {"LiteRT xnnpack", "LiteRT builtin", "ONNX Runtime"}
    assert all(run["samples"] == 64 and run["agreement"] >= 99.0 for run in runs)


def test_quantize_takes_h5_some_formats_and_integer_inputs(folder, capsys):
    from keras_edgeq.runtime.litert import LiteRtModel

    options = ("--formats", "tflite", "--integer-io", "--steps", "1", "--keep-samples", "2")
    assert main(quantize(folder, "tiny.h5", "h5", *options)) == 0
    assert "3 of 3 layers" in capsys.readouterr().out
    assert not (folder / "h5" / "model.onnx").exists()
    model = LiteRtModel((folder / "h5" / "model.tflite").read_bytes())
    assert {details["dtype"] for details in model.outputs.values()} == {np.int8}
    assert json.loads((folder / "h5" / "report.json").read_text())["runs"][0]["samples"] == 2


@pytest.mark.parametrize("artifact", ["model.tflite", "model.onnx", "saved_model"])
def test_verify_accepts_what_was_exported_from_the_sim(folder, artifact, capsys):
    out = folder / "out"
    paths = [str(out / "sim.keras"), str(out / artifact)]
    assert main(["verify", *paths, "--data", str(folder / "x.npz")]) == 0
    assert "DISAGREES" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("artifact", ["model.tflite", "model.onnx", "saved_model"])
def test_verify_ends_with_status_1_for_a_file_of_other_weights(folder, artifact, capsys):
    other = folder / "other"
    if not other.exists():
        tf_keras.utils.set_random_seed(7)
        tiny().save(folder / "other.keras")
        formats = ("--formats", "tflite,onnx,saved_model")
        assert main(quantize(folder, "other.keras", "other", *formats)) == 0
    paths = [str(folder / "out" / "sim.keras"), str(other / artifact)]
    assert main(["verify", *paths, "--data", str(folder / "x.npz")]) == 1
    assert "DISAGREES" in capsys.readouterr().out


@pytest.mark.parametrize("artifact", ["model.tflite", "model.onnx", "saved_model"])
def test_verify_says_that_a_file_belongs_to_a_model_of_another_form(folder, artifact, capsys):
    wide = folder / "wide"
    if not wide.exists():
        data = {"x": np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)}
        np.savez(folder / "wide.npz", **data)
        formats = ("--formats", "tflite,onnx,saved_model")
        args = quantize(folder, "wide.keras", "wide", *formats, calibration="wide.npz")
        assert main(args) == 0
    fails(capsys, ["verify", str(folder / "out" / "sim.keras"), str(wide / artifact)], artifact)


def test_verify_refuses_missing_and_damaged_files(folder, tmp_path, capsys):
    sim = str(folder / "out" / "sim.keras")
    fails(capsys, ["verify", sim, str(tmp_path / "no.tflite")], "no.tflite")
    fails(capsys, ["verify", str(tmp_path / "no.keras"), sim], "no.keras")
    for name in ("broken.tflite", "broken.onnx"):
        (tmp_path / name).write_bytes(b"not a model" * 10)
        fails(capsys, ["verify", sim, str(tmp_path / name)])


def test_a_lambda_in_an_h5_file_runs_only_when_allowed(folder, capsys):
    args = ["inspect", str(folder / "lambda.h5")]
    fails(capsys, args, "twice", "--allow-lambda")
    assert main([*args, "--allow-lambda"]) == 0
    assert "1 stays float" in capsys.readouterr().out


def test_a_sim_with_a_lambda_island_is_verified_only_when_allowed(folder, capsys):
    args = quantize(folder, "lambda.h5", "lambda", "--formats", "saved_model", "--allow-lambda")
    assert main(args) == 0
    verify = ["verify", str(folder / "lambda" / "sim.keras"), str(folder / "lambda/saved_model")]
    fails(capsys, verify, "twice", "--allow-lambda")
    assert main([*verify, "--allow-lambda"]) == 0


def test_wrong_arguments_are_named_before_any_work(folder, tmp_path, capsys):
    args = quantize(folder, "tiny.keras", "unused")
    fails(capsys, [*args, "--profile", "litert_int9"], "litert_int9", "litert_int8")
    fails(capsys, [*args, "--formats", "tflite,coreml"], "coreml", "saved_model")
    fails(capsys, quantize(folder, "tiny.keras", "unused", calibration="no.npz"), "no.npz")
    (tmp_path / "file").write_text("")
    args[args.index("--out") + 1] = str(tmp_path / "file" / "out")
    fails(capsys, args, str(tmp_path / "file"))


def test_numbers_out_of_range_are_usage_errors(folder, capsys):
    for option in ("--steps", "--batch-size"):
        with pytest.raises(SystemExit) as ended:
            main(quantize(folder, "tiny.keras", "unused", option, "0"))
        assert ended.value.code == 2
        assert "at least 1" in capsys.readouterr().err


def test_a_damaged_model_is_one_line(folder, tmp_path, capsys):
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes((folder / "tiny.keras").read_bytes()[:2000])
    fails(capsys, ["inspect", str(damaged)], "damaged.keras")


@pytest.mark.slow
def test_the_extra_is_named_where_scikit_learn_is_missing(tmp_path):
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text("raise ImportError('none here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    command = [sys.executable, "-m", "keras_edgeq_cli", "demo"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 2
    assert "keras_edgeq[demo]" in ran.stderr


def test_layers_get_a_precision_by_name(folder, capsys):
    args = ["inspect", str(folder / "tiny.keras"), "--precision", "head=W4A8"]
    assert main([*args, "--precision", "conv=FP16"]) == 0
    shown = capsys.readouterr().out
    assert "kernel int4 per channel" in shown
    assert "computes in FP16" in shown
    fails(capsys, [*args, "--precision", "nowhere=W4A8"], "nowhere")
    with pytest.raises(SystemExit):
        main([*args, "--precision", "=W4A8"])
    assert "NAME=PRECISION" in capsys.readouterr().err


def test_a_precision_alone_is_for_all_layers(folder, capsys):
    assert main(["inspect", str(folder / "tiny.keras"), "--precision", "W4A8"]) == 0
    assert capsys.readouterr().out.count("kernel int4 per channel") == 2


# What was typed, and what was meant.
NEAREST = {
    "quantise": "quantize",
    "inspect MODEL --profile litert_int_8": "litert_int8",
    "inspect MODEL --profile int8": "litert_int8",
    "inspect MODEL --precision w4a8": "W4A8",
    "inspect MODEL --precision hed=W4A8": "head",
    "quantize MODEL --out out --formats onx": "onnx",
    "quantize MODEL --out out --formts onnx": "--formats",
    "inspect tyny.keras": "tiny.keras",
}


@pytest.mark.parametrize("line", NEAREST)
def test_an_unknown_name_is_answered_with_the_nearest_one(line, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    try:
        status = main(line.replace("MODEL", "tiny.keras").split())
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert f"Did you mean '{NEAREST[line]}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["profiles", "inspect MODEL", "grids SIM", "verify SIM FILE", "quantize MODEL ..."],
)
def test_json_is_all_that_stands_on_stdout(line, folder, capsys):
    names = {"MODEL": "tiny.keras", "SIM": "out/sim.keras", "FILE": "out/model.tflite"}
    args = [str(folder / names[word]) if word in names else word for word in line.split()]
    if args[-1] == "...":
        args = quantize(folder, "tiny.keras", "json", "--formats", "tflite")
    assert main([*args, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values
    if line.startswith(("verify", "quantize")):
        assert values["agrees"] is True


def test_json_is_alone_on_stdout_whoever_prints_there(folder, monkeypatch, capfd):
    import keras_edgeq as eq

    def noisy(*args):
        print("a library")
        os.write(1, b"and its C++ code\n")
        return eq.describe(*args)

    monkeypatch.setattr("keras_edgeq.cli.inspect.eq", type("", (), {**vars(eq), "describe": noisy}))
    assert main(["inspect", str(folder / "tiny.keras"), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["model"] == "tiny"
    assert "a library" in err
    assert "C++" in err


def test_quiet_prints_only_what_went_wrong(folder, capsys):
    args = quantize(folder, "tiny.keras", "quiet", "--formats", "tflite", "--quiet")
    assert main(args) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["profiles", "--quiet"]) == 0
    assert "litert_int8" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("folders", ["new", "new/and/deep", "there"])
def test_ctrl_c_is_one_line_and_leaves_no_empty_folder(
    folders, folder, tmp_path, monkeypatch, capsys
):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_edgeq.sim.calibrate.observe", stopped)
    (tmp_path / "there").mkdir()
    args = quantize(folder, "tiny.keras", "unused", "--quiet")
    args[args.index("--out") + 1] = str(tmp_path / folders)
    assert main(args) == 130
    assert capsys.readouterr() == ("", "keras-edgeq: stopped.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_ends_early_for_another_reason_leaves_no_empty_folder_either(folder, capsys):
    fails(capsys, quantize(folder, "tiny.keras", "none", calibration="wide.npy"), "image")
    assert not (folder / "none").exists()


def test_a_fault_of_the_program_is_no_disagreement(folder, monkeypatch, capsys):
    monkeypatch.setattr("keras_edgeq.cli.checks.check", lambda args: 1 / 0)
    assert main(["inspect", str(folder / "tiny.keras")]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_file_is_benchmarked_and_the_report_written(folder, tmp_path, capsys):
    quick = ["--runs", "2", "--warmup", "0", "--quiet", "--save", str(tmp_path / "found.json")]
    assert main(["benchmark", str(folder / "out" / "model.tflite"), *quick]) == 0
    assert capsys.readouterr().out == ""
    values = json.loads((tmp_path / "found.json").read_text())
    assert values["runs"] == len(values["latencies_ms"]) == 2
    assert values["operations"]


def test_sizes_of_a_benchmark_are_held_against_the_file(folder, capsys):
    asked = ["benchmark", str(folder / "out" / "model.tflite"), "--sizes"]
    fails(capsys, [*asked, "1,64"], "(1, 64)")
    fails(capsys, [*asked, "imge=1,64"], "imge")


def test_a_metric_of_a_file_is_measured_and_compared(folder, tmp_path, capsys):
    with np.load(folder / "x.npz") as loaded:
        x = loaded[loaded.files[0]]
    np.savez(tmp_path / "data.npz", x=x, y=np.zeros(len(x), np.int64))
    asked = ["--data", str(tmp_path / "data.npz"), "--metric", "accuracy", "--json"]
    path = str(folder / "out" / "model.tflite")
    assert main(["validate", path, *asked]) == 0
    value = json.loads(capsys.readouterr().out)["value"]
    models = [str(folder / "tiny.keras"), str(folder / "out" / "sim.keras")]
    saved = ["--save", str(tmp_path / "found.csv"), "--runs", "2"]
    assert main(["compare", *models, path, *asked, *saved]) == 0
    rows = json.loads(capsys.readouterr().out)["candidates"]
    assert rows[-1]["metric"] == value
    assert rows[0]["sqnr_db"] is None
    assert (tmp_path / "found.csv").read_text().count("\n") == 1 + len(rows)


def test_grids_are_printed_and_written(folder, tmp_path, capsys):
    sim = str(folder / "out" / "sim.keras")
    assert main(["grids", sim]) == 0
    assert "conv/kernel" in capsys.readouterr().out
    assert main(["grids", sim, "--csv", str(tmp_path / "grids.csv")]) == 0
    rows = (tmp_path / "grids.csv").read_text().splitlines()
    assert rows[0].startswith("tensor,kind,bits")
    assert any(row.startswith("head/bias,bias,32") for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_ctrl_c_in_a_process_of_its_own(folder, tmp_path):
    many = np.zeros((20_000, 6, 6, 2), np.float32)
    np.savez(tmp_path / "many.npz", image=many + np.random.default_rng(0).normal(size=2))
    command = [sys.executable, "-m", "keras_edgeq", "quantize", str(folder / "tiny.keras")]
    command += ["--calibration", str(tmp_path / "many.npz"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, "--batch-size", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Where the tests run in the background, a shell has told them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as run:
        said = b""
        while b"calibrate" not in said:
            said += run.stderr.read(1)
        run.send_signal(signal.SIGINT)
        out, error = run.communicate()
    assert run.returncode == 130
    assert out == b""
    assert error.splitlines()[-1] == b"keras-edgeq: stopped."
    assert b"Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_quantize_without_data_takes_the_range_of_the_inputs(tmp_path, capsys):
    layers = [tf_keras.Input((6, 6, 2)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU()]
    tf_keras.Sequential([*layers, L.Flatten(), L.Dense(3)]).save(tmp_path / "normed.keras")
    args = ["quantize", str(tmp_path / "normed.keras"), "--out", str(tmp_path / "out")]
    assert main([*args, "--formats", "tflite", "--input-range", "-1", "1"]) == 0
    assert (tmp_path / "out" / "model.tflite").exists()
    capsys.readouterr()
    fails(capsys, args, "input_range")
