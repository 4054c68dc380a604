import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.numerics.affine import dequantize, grid_from_range, integer_bounds, quantize
from keras_edgeq.numerics.round_to_steps import round_to_steps, scale_sums
from tests import reference

SHAPES = {
    "per tensor": (),
    "per channel": (1, 1, 4),
    "two channel axes": (1, 3, 4),
    "trailing axis": (4,),
}


def fake_quant(x, scale, zero_point, qmin, qmax, half_away=False):
    """Fake quantization out of the rounding op, as the layers compose it."""
    ratio = tf.math.divide_no_nan(tf.cast(x, tf.float32), scale)
    rounding = "half_away" if half_away else "half_even"
    steps = round_to_steps(ratio, qmin - zero_point, qmax - zero_point, zero_point, rounding)
    return tf.cast(steps * scale, tf.as_dtype(x.dtype))


def run(x, grid, half_away=False, upstream=None):
    """Output and gradients to x, scale and zero point, as NumPy arrays."""
    x, *grid = [tf.constant(t) for t in (x, *grid)]
    with tf.GradientTape() as tape:
        tape.watch([x, *grid[:2]])
        y = fake_quant(x, *grid, half_away=half_away)
    upstream = None if upstream is None else tf.constant(upstream)
    gradients = tape.gradient(y, [x, *grid[:2]], output_gradients=upstream)
    return y.numpy(), [g.numpy() for g in gradients]


def grid_of(bits, symmetric, signed, narrow_range, shape, seed=0):
    rng = np.random.default_rng(seed)
    low = np.zeros(shape) if symmetric and not signed else -rng.random(shape) - 0.1
    kind = {"bits": bits, "symmetric": symmetric, "signed": signed, "narrow_range": narrow_range}
    scale, zero_point = grid_from_range(low, rng.random(shape) + 0.1, **kind)
    qmin, qmax = np.float32(integer_bounds(bits, signed, narrow_range))
    return scale, zero_point.astype(np.float32), qmin, qmax


def values(scale, zero_point, qmin, qmax):
    """Normal values, exact ties, and both clip points with their neighbours, `[n, 3, 4]`."""
    rng = np.random.default_rng(1)
    ends = [np.broadcast_to((q - zero_point) * scale, (1, 3, 4)) for q in (qmin, qmax)]
    near = [np.nextafter(e, np.float32(to)) for e in ends for to in (-np.inf, np.inf)]
    # TensorFlow kernels flush subnormal numbers, so the neighbours of 0 are the smallest normal.
    tiny = np.finfo(np.float32).tiny
    near = [np.where((n != 0) & (np.abs(n) < tiny), np.copysign(tiny, n), n) for n in near]
    ties = (np.arange(-4, 4)[:, None, None] + np.float32(0.5)) * scale + np.zeros((3, 4))
    return np.concatenate([rng.normal(size=(10, 3, 4)), *ends, *near, ties]).astype(np.float32)


@pytest.mark.parametrize("half_away", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [
    (False, True, False), (False, False, False), (True, True, False), (True, True, True),
    (True, False, False),
])  # fmt: skip
def test_values_and_gradients_equal_the_paper(kind, shape, half_away):
    for bits in range(2, 17):
        grid = grid_of(bits, *kind, SHAPES[shape], seed=bits)
        x = values(*grid)
        g = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
        y, (dx, dscale, dzero) = run(x, grid, half_away, g)
        np.testing.assert_array_equal(y, reference.fake_quant(x, *grid, half_away))
        expected = reference.fake_quant_gradients(x, g, *grid, half_away)
        np.testing.assert_allclose(dx, expected[0], rtol=1e-6)
        for actual, wanted in zip((dscale, dzero), expected[1:], strict=True):
            assert actual.shape == grid[0].shape
            size = np.abs(wanted).sum() + 1e-6
            wanted = reference.sum_to_shape(wanted, actual.shape)
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize(("x", "dx", "dscale", "dzero"), [
    (-5.0, 0.0, -7.0, -0.5),  # below: v = -10
    (-3.5, 1.0, 0.0, 0.0),  # at the lower end: v = -7
    (0.6, 1.0, -0.2, 0.0),  # inside: round(1.2) - 1.2
    (4.0, 1.0, 0.0, 0.0),  # at the upper end: v = 8
    (4.1, 0.0, 8.0, -0.5),  # above
])  # fmt: skip
def test_gradients_below_at_and_above_the_clip_are_the_lsq_ones(x, dx, dscale, dzero):
    _, gradients = run(np.float32(x), np.float32([0.5, -1.0, -8.0, 7.0]))
    np.testing.assert_allclose(gradients, [dx, dscale, dzero], atol=1e-6)


def test_ties_go_to_even_steps_or_away_from_integer_zero():
    ties = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    for zero_point, even, away in [
        (0.0, [-2, -2, 0, 0, 2, 2], [-3, -2, -1, 1, 2, 3]),
        # Grid integers are ties + 1 (even) but their tie rule looks at integer 0.
        (1.0, [-2, -2, 0, 0, 2, 2], [-3, -2, 0, 1, 2, 3]),
        (-3.0, [-2, -2, 0, 0, 2, 2], [-3, -2, -1, 0, 1, 2]),
    ]:
        grid = np.float32([1.0, zero_point, -128.0, 127.0])
        np.testing.assert_array_equal(run(ties, grid)[0], np.float32(even))
        np.testing.assert_array_equal(run(ties, grid, half_away=True)[0], np.float32(away))


def test_the_largest_number_below_a_half_rounds_to_zero():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    for half_away in (False, True):
        y, _ = run(np.float32([below, -below]), np.float32([1, 0, -8, 7]), half_away)
        np.testing.assert_array_equal(y, [0.0, 0.0])


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_other_dtypes_compute_in_float32_and_come_back_in_their_own(dtype):
    x = tf.cast(np.random.default_rng(0).normal(size=(8, 4)) * 3, dtype)
    x32 = tf.cast(x, tf.float32)
    grid = [tf.constant(t) for t in np.float32([0.0173, 3.0, -128.0, 127.0])]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, x32, grid[0]])
        y, y32 = fake_quant(x, *grid), fake_quant(x32, *grid)
    assert y.dtype == dtype
    np.testing.assert_array_equal(tf.cast(y32, dtype), y)
    dx, dscale = tape.gradient(y, [x, grid[0]])
    assert dx.dtype == dtype
    assert dscale.dtype == tf.float32
    np.testing.assert_array_equal(tf.cast(dx, tf.float32), tape.gradient(y32, x32))
    assert float(dscale) == float(tape.gradient(y32, grid[0]))


@pytest.mark.parametrize("as_constant", [False, True])
def test_graphs_agree_bit_for_bit_with_numpy_even_when_the_grid_is_constant(as_constant):
    x = (np.random.default_rng(0).normal(size=20000) * 50).astype(np.float32)
    scale, bounds = np.float32(0.0371), (-32768, 32767)
    variable = tf.Variable(scale)

    @tf.function
    def graph(x):
        return fake_quant(x, scale if as_constant else variable, 5.0, *map(float, bounds))

    expected = dequantize(quantize(x, scale, 5, *bounds), scale, 5)
    np.testing.assert_array_equal(graph(x), expected)


def test_changing_the_grid_does_not_retrace():
    grid = [tf.Variable(v) for v in (0.1, 0.0, -128.0, 127.0)]
    traces = []

    @tf.function
    def step(x):
        traces.append(1)
        with tf.GradientTape() as tape:
            y = fake_quant(x, *grid)
        return y, tape.gradient(y, grid[:2])

    x = np.linspace(-1, 1, 9, dtype=np.float32)
    for bits in (8, 4, 2):
        for variable, value in zip(grid[2:], integer_bounds(bits, signed=True), strict=True):
            variable.assign(value)
        expected = reference.fake_quant(x, *[v.numpy() for v in grid])
        np.testing.assert_array_equal(step(x)[0], expected)
    assert len(traces) == 1


@pytest.mark.parametrize("shape", [None, (None, None, 4)])
def test_gradients_keep_the_shape_of_the_scale_when_the_input_shape_is_unknown(shape):
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32), tf.TensorSpec([1, 1, 4])])
    def gradient(x, scale):
        with tf.GradientTape() as tape:
            tape.watch(scale)
            y = fake_quant(x, scale, 0.0, -8.0, 7.0)
        return tape.gradient(y, scale)

    assert gradient(tf.random.stateless_normal([2, 5, 4], (1, 2)), tf.ones([1, 1, 4])).shape == (
        1, 1, 4,
    )  # fmt: skip


def test_it_compiles_with_xla_to_the_same_values_and_gradients():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    grid = [np.float32([[0.25, 0.5, 0.125, 1.0]]), np.float32(1), np.float32(-8), np.float32(7)]

    def both(x, scale):
        with tf.GradientTape() as tape:
            tape.watch(scale)
            y = fake_quant(x, scale, *grid[1:])
        return y, tape.gradient(y, scale)

    plain = both(tf.constant(x), tf.constant(grid[0]))
    compiled = tf.function(both, jit_compile=True)(tf.constant(x), tf.constant(grid[0]))
    np.testing.assert_array_equal(compiled[0], plain[0])
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-6)


class LearnedGrid(tf_keras.layers.Layer):
    def build(self, input_shape):
        make = {"initializer": "ones", "experimental_autocast": False, "dtype": tf.float32}
        self.scale = self.add_weight(name="scale", shape=[1, input_shape[-1]], **make)
        super().build(input_shape)

    def call(self, x):
        return fake_quant(x, self.scale, 0.0, -8.0, 7.0)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_functional_model_trains_its_scale(policy):
    x_in = tf_keras.Input([4])
    layer = LearnedGrid(dtype=tf_keras.mixed_precision.Policy(policy))
    model = tf_keras.Model(x_in, layer(x_in))
    model.compile(tf_keras.optimizers.SGD(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32) * 3
    before = layer.scale.numpy()
    model.fit(x, x, epochs=1, verbose=0)
    assert model(x).dtype == tf.as_dtype(layer.compute_dtype)
    assert np.all(layer.scale.numpy() != before)
    assert np.all(np.isfinite(layer.scale))


def test_an_autocast_grid_is_an_error_instead_of_a_loss_of_precision():
    with pytest.raises((ValueError, TypeError)):
        fake_quant(tf.ones([2]), tf.constant(0.1, tf.float16), 0.0, -8.0, 7.0)


def test_nan_stays_nan_and_infinity_saturates():
    y, _ = run(np.float32([np.nan, np.inf, -np.inf]), np.float32([0.5, 0, -8, 7]))
    np.testing.assert_array_equal(y, np.float32([np.nan, 3.5, -4.0]))


def fixed_point(sums, factor):
    """Return sums times a factor in 32-bit fixed point: a rounded product, then a rounded shift."""
    fraction, shift = np.frexp(np.float64(factor))
    multiplier, shift = int(np.rint(fraction * 2**31)), int(shift)
    left, right = max(shift, 0), max(-shift, 0)
    products = [((int(x) << left) * multiplier + (1 << 30)) >> 31 for x in sums]
    return np.array([(p + ((1 << right) >> 1)) >> right for p in products])


@pytest.mark.parametrize("factor", [0.9137, 0.5123, 0.28, 0.0625, 0.0171, 3e-4, 1.0, 1.7136543])
def test_sums_rounded_twice_are_those_of_a_fixed_point_kernel(factor):
    sums = np.arange(-3000, 3000).astype(np.float32)
    real = np.float32(factor)
    ratio = scale_sums(tf.constant(sums), tf.constant(real))
    got = round_to_steps(ratio, -1e6, 1e6, rounding="twice").numpy()
    # A float32 product is a tie where the kernel's 62 bits lie a hair beside one.
    assert np.abs(got - fixed_point(sums, real)).max() <= 1
    assert np.mean(got == fixed_point(sums, real)) > 0.9995


def test_rounding_twice_is_not_rounding_once():
    sums = np.arange(-3000, 3000).astype(np.float32)
    once = np.rint(sums * np.float32(0.0171))
    twice = fixed_point(sums, np.float32(0.0171))
    assert 0.001 < np.mean(once != twice) < 0.1


def test_the_gradient_of_sums_rounded_twice_is_that_of_the_product():
    sums, factor = tf.Variable([[3.0, -5.0], [7.0, 2.0]]), tf.Variable([0.3, 0.6])
    with tf.GradientTape() as tape:
        made = tf.reduce_sum(scale_sums(sums, factor) * tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    by_sums, by_factor = tape.gradient(made, [sums, factor])
    np.testing.assert_allclose(by_sums, [[0.3, 1.2], [0.9, 2.4]], rtol=1e-6)
    np.testing.assert_allclose(by_factor, [24.0, -2.0], rtol=1e-6)


def test_sums_rounded_twice_away_from_zero_take_negative_ties_down():
    sums = np.arange(-3000, 3000).astype(np.float32)
    real = np.float32(0.0171)
    ratio = scale_sums(tf.constant(sums), tf.constant(real))
    up = round_to_steps(ratio, -1e6, 1e6, rounding="twice").numpy()
    away = round_to_steps(ratio, -1e6, 1e6, rounding="twice_away").numpy()
    tie = ratio.numpy() % 1 == 0.5
    assert np.any(tie & (sums < 0))
    np.testing.assert_array_equal(away, up - (tie & (sums < 0)))


def test_channels_that_fill_no_vector_of_eight_round_negative_ties_away_from_zero():
    ratio = tf.fill([2, 11], -2.5)
    got = round_to_steps(ratio, -9.0, 9.0, rounding="twice_lanes").numpy()
    np.testing.assert_array_equal(got, np.tile([*[-2.0] * 8, *[-3.0] * 3], (2, 1)))
