"""Break a copy of the package in one place at a time, and see what notices.

    python scripts/mutations.py [NAME ...]

Each mutation is an edit of one line. A small model whose sim it would make wrong is quantized with
the broken copy: the identity check has to refuse it, or the named tests have to fail. Prints what
caught each; exits non-zero where nothing did. About four minutes on two cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutation:
    """One edit: in `file` of the package, `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    model: str
    tests: str = ""


START = "import numpy as np, tensorflow as tf, tf_keras; L = tf_keras.layers; I = tf_keras.Input; "
CONV = "x = I((8, 8, 3)); y = L.Conv2D(4, 3, activation='relu6')(x); "
END = "m = tf_keras.Model(x, L.Dense(3)(L.Flatten()(y)))"
MODELS = {
    "maximum": CONV + "y = tf.maximum(y, 0.5); " + END,
    "two": CONV + "y = tf.minimum(y, L.Conv2D(4, 3)(x)); " + END,
    "pad": CONV + "y = tf.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0); y = "
    "L.Conv2D(2, 3)(y); " + END,
    "relu6": CONV + "y = L.Conv2D(4, 3, activation='relu6')(4.0 * y); " + END,
    "bias": "x = I((6,)); y = L.Dense(5, activation='relu', bias_initializer='ones')(x); " + END,
    "norm": CONV
    + "y = L.BatchNormalization(moving_mean_initializer='ones')(L.Conv2D(4, 3)(y)); "
    + END,
    "mask": "x = I((7, 5)); y = L.Dense(4, activation='relu')(L.Masking()(x)); y = L.LSTM(3)(y); "
    + END,
    "pool": "x = I((3, 3, 2)); y = L.AveragePooling2D(3, 1, padding='same')(L.Conv2D(4, 1)(x)); "
    + END,
    "average": CONV + "y = L.AveragePooling2D()(y); y = L.Conv2D(3, 2)(y); " + END,
    "ids": "x = I((5,)); y = L.Embedding(200, 4)(x); " + END,
    "branches": CONV + "y = L.Concatenate()([L.MaxPooling2D()(y), L.MaxPooling2D()(tf.exp(-y))]); "
    "y = L.Conv2D(2, 2)(y); " + END,
}
MUTATIONS = (
    Mutation("a constant is taken for steps", "ops/operands.py",
             "if not is_axis and (not taken.scalars", "if False and (not taken.scalars", "maximum"),
    Mutation("a keyword operand stays real", "sim/insert.py",
             "self.steps[id(v)][1] if id(v) in self.steps else v, (args, kwargs)",
             "self.steps[id(v)][1] if id(v) in self.steps and v is args[0] else v, (args, kwargs)",
             "two"),
    Mutation("any padding adds zeros", "ops/operands.py",
             'return mode == "CONSTANT" and bool(np.all(value == 0))', "return True", "pad"),
    Mutation("the cap is in real units", "layers/fake_quant.py",
             "tf.math.divide_no_nan(6.0, scale)", "tf.constant(6.0)", "relu6"),
    Mutation("the bias forgets the input's scale", "layers/quantized_layer.py",
             "full = input_scale * scale\n", "full = scale\n", "bias"),
    Mutation("a batch norm folds without its mean", "prepare/fold_batch_norms.py",
             "offset = -mean * scale", "offset = 0.0 * mean", "norm"),
    Mutation("masks stay attributes", "prepare/__init__.py",
             "    masks_to_tensors,\n", "", "mask", "-k masks_reach"),
    Mutation("every window of the input's size is global", "prepare/global_pools.py",
             "or set(made) != {1}", "", "pool"),
    Mutation("an average keeps its input's steps", "sim/insert.py",
             "return self._as_sums(made, owner)", "return made", "average"),
    Mutation("ids lie on a grid", "sim/resolve.py",
             "if node.is_float and ref not in self.ids else []", "if node.is_float else []",
             "ids", "-k ids"),
    Mutation("a float layer is called on steps", "sim/stepwise.py",
             "and not is_float and", "and", "maximum"),
    Mutation("ties are rounded down", "numerics/round_to_steps.py",
             "return tf.math.rint(steps)", "return tf.math.ceil(steps - 0.5)",
             "bias", "tests/numerics/test_round_to_steps.py tests/layers/test_fake_quant.py"),
    Mutation("no floor under wide biases", "sim/derive.py",
             "if layer.bias_spec is None or layer.bias_spec.is_half",
             "if layer.bias_spec is None or layer.bias_spec.bits > 32", "bias", "-k tiny_weights"),
    Mutation("constants are trained", "layers/quantized_layer.py",
             "return [] if self.constant else", "return [] if False else", "bias",
             "-k are_not_trained"),
)  # fmt: skip


def main(names: list[str]) -> int:
    """Try the mutations that are named, or all."""
    missed = 0
    for mutation in MUTATIONS:
        if not names or mutation.name in names:
            with tempfile.TemporaryDirectory() as folder:
                caught = _try(mutation, Path(folder))
            missed += caught is None
            print(f"{mutation.name:45s} {caught or 'NOTICED BY NOTHING'}", flush=True)
    return 1 if missed else 0


def _try(mutation: Mutation, folder: Path) -> str | None:
    """Return what notices a mutation, None where nothing does."""
    for name in ("keras_edgeq", "tests"):
        shutil.copytree(REPO / name, folder / name)
    for name in ("pyproject.toml", "setup.cfg"):
        shutil.copy(REPO / name, folder)
    path = folder / "keras_edgeq" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.name}: its line stands {text.count(mutation.old)} times")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    said = _quantized(mutation, folder)
    if said:
        return said
    if mutation.tests:
        where = [] if "tests/" in mutation.tests else ["tests/sim/test_right_numbers.py"]
        command = [sys.executable, "-m", "pytest", "-q", "-x", *where, *mutation.tests.split()]
        if _run(command, folder).returncode == 1:
            return f"tests: {mutation.tests}"
    return None


def _quantized(mutation: Mutation, folder: Path) -> str | None:
    """Return what `quantize` says of the mutation's model."""
    code = (
        "import warnings; warnings.simplefilter('ignore'); " + START + MODELS[mutation.model] + "\n"
        "import keras_edgeq as eq\nfrom keras_edgeq.errors import SimMismatchError\n"
        "rng = np.random.default_rng(0)\n"
        "data = rng.normal(size=(32, *m.input_shape[1:])).astype('float32')\n"
        "data = rng.integers(0, 200, data.shape).astype('float32') if 'Embedding' in str(["
        "type(la).__name__ for la in m.layers]) else data\n"
        "if data.ndim == 3: data[:, 4:] = 0.0\n"
        "try:\n    sim = eq.quantize(m, data, progress=False)\n"
        "except SimMismatchError as error:\n    print('identity check at', error.tensor)\n"
        "else:\n"
        "    db = min(one.sqnr_db for one in sim.record.fidelity.outputs)\n"
        "    print(f'float beside sim: {db:.1f} dB' if db < 10.0 else '')\n"
    )
    done = _run([sys.executable, "-c", code], folder)
    if done.returncode:
        return "an error: " + done.stderr.strip().splitlines()[-1][:80]
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else None


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
