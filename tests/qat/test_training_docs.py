from pathlib import Path

import numpy as np
import tf_keras

import keras_edgeq as eq
from tests.models import train_like

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "training.md"


def test_the_loop_of_the_how_to_trains_weights_and_ranges(capsys):
    section = PAGE.read_text(encoding="utf-8").partition("## Your own loop")[2]
    block = section.partition("```python\n")[2].partition("```")[0]
    x = tf_keras.Input((6,))
    model = train_like(tf_keras.Model(x, tf_keras.layers.Dense(3, kernel_regularizer="l2")(x)))
    rng = np.random.default_rng(0)
    train_x, train_y = np.float32(rng.normal(size=(64, 6))), rng.integers(0, 3, 64)
    sim = eq.learn_ranges(eq.quantize(model, train_x, progress=False))
    before = [v.numpy() for v in sim.trainable_variables]
    exec(block, {"sim": sim, "train_x": train_x, "train_y": train_y})
    losses = [float(line.partition(": ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    moved = [
        not np.array_equal(variable.numpy(), was)
        for variable, was in zip(sim.trainable_variables, before, strict=True)
    ]
    ranges = {id(variable) for variable in sim.range_variables()}
    is_range = [id(variable) in ranges for variable in sim.trainable_variables]
    # A zero point moves only where values are clipped.
    assert all(m for m, r in zip(moved, is_range, strict=True) if not r)
    assert any(m for m, r in zip(moved, is_range, strict=True) if r)
