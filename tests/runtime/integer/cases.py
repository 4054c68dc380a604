"""Random files of one operation, by operation: what the executor is compared with LiteRT on."""

from collections.abc import Callable
from functools import partial

import numpy as np

from tests.runtime.integer.files import T, constant, one_op, options

RELU, RELU6 = 1, 3
SAME, VALID = 0, 1
LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767), "int4": (-7, 7)}


def scale(rng, low=0.002, high=0.2):
    return np.float32(np.exp(rng.uniform(np.log(low), np.log(high))))


def zero(rng, dtype):
    return 0 if dtype == "int16" else int(rng.integers(-128, 128))


def tensor(rng, shape, dtype="int8"):
    return T(tuple(shape), dtype, scale(rng), zero(rng, dtype))


def drawn(rng, given):
    """Return integers of a tensor's whole range."""
    low, high = LIMITS[given.dtype]
    return rng.integers(low, high + 1, given.shape).astype(given.dtype)


def weights(rng, shape, axis, dtype="int8", per_channel=True):
    low, high = LIMITS["int4" if dtype == "int4" else "int8"]
    values = rng.integers(low, high + 1, shape)
    count = shape[axis] if per_channel else 1
    scales = np.array([scale(rng, 0.001, 0.02) for _ in range(count)], np.float32)
    return constant(values.astype(np.int8), dtype, scales, 0, axis if per_channel else 0)


def weighted(rng, name, x, w, out_shape, opts, version, bias=True, fan_in=9, stretch=1.0):
    """Return a file with weights whose output scale lets some values saturate, most not."""
    wide = x.dtype == "int16"
    spread = float(np.sqrt(fan_in)) * (4000.0 if wide else 40.0) * float(np.mean(w.scale))
    spread *= 4.0 if w.dtype == "int4" else 70.0
    step = np.float32(x.scale * spread / (12000.0 if wide else 45.0) * stretch)
    out = T(tuple(out_shape), x.dtype, step, zero(rng, x.dtype))
    count = out_shape[-1]
    b = None
    if bias:
        values = rng.integers(-3000, 3000, count).astype(np.int64 if wide else np.int32)
        b = constant(values, None, x.scale * w.scale, 0)
    return one_op(name, [x, w, b] if bias else [x, w], [out], opts, version), [drawn(rng, x)]


def window(length, size, stride, padding, dilation=1):
    span = (size - 1) * dilation + 1
    return -(-length // stride) if padding == SAME else (length - span) // stride + 1


def conv(
    rng,
    dtype="int8",
    wdtype="int8",
    per_channel=True,
    kernel=3,
    stride=1,
    dilation=1,
    padding=SAME,
    batch=1,
    channels=5,
    count=7,
    act=0,
    bias=True,
    groups=1,
    stretch=1.0,
):
    size = (11, 9)
    x = tensor(rng, (batch, *size, channels), dtype)
    w = weights(rng, (count, kernel, kernel, channels // groups), 0, wdtype, per_channel)
    out = [window(n, kernel, stride, padding, dilation) for n in size]
    opts = options(
        "Conv2D",
        strideH=stride,
        strideW=stride,
        dilationHFactor=dilation,
        dilationWFactor=dilation,
        padding=padding,
        fusedActivationFunction=act,
    )
    version = 7 if wdtype == "int4" else 6 if groups > 1 else 5 if dtype == "int16" else 3
    fan_in = kernel * kernel * channels // groups
    out_shape = (batch, *out, count)
    return weighted(rng, "CONV_2D", x, w, out_shape, opts, version, bias, fan_in, stretch)


def depthwise(
    rng,
    dtype="int8",
    wdtype="int8",
    per_channel=True,
    kernel=3,
    stride=1,
    dilation=1,
    padding=SAME,
    batch=1,
    channels=5,
    multiplier=1,
    act=0,
    bias=True,
):
    size, count = (11, 9), channels * multiplier
    x = tensor(rng, (batch, *size, channels), dtype)
    w = weights(rng, (1, kernel, kernel, count), 3, wdtype, per_channel)
    out = [window(n, kernel, stride, padding, dilation) for n in size]
    opts = options(
        "DepthwiseConv2D",
        strideH=stride,
        strideW=stride,
        dilationHFactor=dilation,
        dilationWFactor=dilation,
        padding=padding,
        depthMultiplier=multiplier,
        fusedActivationFunction=act,
    )
    version = 7 if wdtype == "int4" else 5 if dtype == "int16" else 3
    out_shape = (batch, *out, count)
    return weighted(rng, "DEPTHWISE_CONV_2D", x, w, out_shape, opts, version, bias, kernel * kernel)


def dense(
    rng,
    dtype="int8",
    wdtype="int8",
    per_channel=True,
    batch=3,
    depth=20,
    count=6,
    act=0,
    bias=True,
    rank=2,
):
    shape = (batch, depth) if rank == 2 else (batch, 4, depth)
    x = tensor(rng, shape, dtype)
    w = weights(rng, (count, depth), 0, wdtype, per_channel)
    opts = options("FullyConnected", keepNumDims=rank > 2, fusedActivationFunction=act)
    version = 12 if per_channel else 10 if wdtype == "int4" else 7 if dtype == "int16" else 4
    out_shape = (*shape[:-1], count)
    return weighted(rng, "FULLY_CONNECTED", x, w, out_shape, opts, version, bias, depth)


def deconv(
    rng,
    dtype="int8",
    per_channel=True,
    kernel=3,
    stride=2,
    padding=SAME,
    batch=1,
    bias=True,
    count=4,
):
    size, channels = (5, 4), 3
    x = tensor(rng, (batch, *size, channels), dtype)
    w = weights(rng, (count, kernel, kernel, channels), 0, "int8", per_channel)
    more = 0 if padding == SAME else max(kernel - stride, 0)
    out = (batch, *(n * stride + more for n in size), count)
    opts = options("TransposeConv", strideH=stride, strideW=stride, padding=padding)
    wide = dtype == "int16"
    made = T(
        out, dtype, np.float32(x.scale * 5 * np.mean(w.scale)) * np.float32(9), zero(rng, dtype)
    )
    values = rng.integers(-3000, 3000, count).astype(np.int64 if wide else np.int32)
    b = constant(values, None, x.scale * w.scale, 0) if bias else None
    inputs = [constant(np.array(out, np.int32)), w, x, *([b] if bias else [])]
    return one_op("TRANSPOSE_CONV", inputs, [made], opts, 3), [drawn(rng, x)]


def pair(
    rng,
    name,
    kind,
    dtype="int8",
    shapes=((2, 5, 7, 3), (2, 5, 7, 3)),
    act=0,
    fixed=False,
    version=2,
    close=True,
):
    a, b = (tensor(rng, shape, dtype) for shape in shapes)
    out_shape = np.broadcast_shapes(*shapes)
    spread = float(a.scale * b.scale) * (60.0 if dtype == "int8" else 9000.0)
    step = spread if name == "MUL" else float(a.scale + b.scale) * 0.6
    out = T(out_shape, dtype, np.float32(step), zero(rng, dtype))
    if fixed:
        b.data = drawn(rng, b)
    opts = options(kind, fusedActivationFunction=act)
    if dtype == "int16" and hasattr(opts, "potScaleInt16"):
        opts.potScaleInt16 = False
    fed = [drawn(rng, t) for t in (a, b) if t.data is None]
    return one_op(name, [a, b], [out], opts, version), fed


def matmul(rng, adj_x=False, adj_y=False, shapes=((2, 4, 6), (2, 6, 5))):
    a, b = (tensor(rng, shape) for shape in shapes)
    left = shapes[0][:-2] + ((shapes[0][-1],) if adj_x else (shapes[0][-2],))
    out_shape = (*left, shapes[1][-2] if adj_y else shapes[1][-1])
    out = T(out_shape, "int8", np.float32(a.scale * b.scale * 300), zero(rng, "int8"))
    opts = options("BatchMatMul", adjX=adj_x, adjY=adj_y)
    return one_op("BATCH_MATMUL", [a, b], [out], opts, 2), [drawn(rng, a), drawn(rng, b)]


def one_grid(
    rng, name, opts, version, extra=(), shape=(2, 9, 8, 3), out=None, dtype="int8", fed=None
):
    """Return a file with an operation whose output has its input's grid."""
    x = tensor(rng, shape, dtype)
    inputs = [constant(np.asarray(e)) if e is not None else x for e in (None, *extra)]
    if fed is not None:
        inputs = fed(x)
    outs = out if isinstance(out, list) else [out or shape]
    made = [T(tuple(s), dtype, x.scale, x.zero) for s in outs]
    return one_op(name, inputs, made, opts, version), [drawn(rng, x)]


def pool(rng, name, size=2, stride=2, padding=VALID, act=0, dtype="int8", channels=3):
    opts = options(
        "Pool2D",
        filterHeight=size,
        filterWidth=size,
        strideH=stride,
        strideW=stride,
        padding=padding,
        fusedActivationFunction=act,
    )
    out = (2, window(9, size, stride, padding), window(8, size, stride, padding), channels)
    return one_grid(
        rng,
        name,
        opts,
        3 if dtype == "int16" else 2,
        shape=(2, 9, 8, channels),
        out=out,
        dtype=dtype,
    )


def reduced(rng, name, axes=(1, 2), keep=True, same=False, dtype="int8", shape=(2, 9, 8, 3)):
    x = tensor(rng, shape, dtype)
    gone = {a % len(shape) for a in axes}
    kept = tuple(1 if i in gone else n for i, n in enumerate(shape))
    out_shape = kept if keep else tuple(n for i, n in enumerate(shape) if i not in gone)
    step, point = (x.scale, x.zero) if same else (x.scale * np.float32(0.7), zero(rng, dtype))
    if name == "SUM":
        step = x.scale * np.float32(9)
    out = T(out_shape, dtype, step, point)
    opts = options("Reducer", keepDims=keep)
    version = 3 if dtype == "int16" and name == "REDUCE_MAX" else 2
    return one_op(name, [x, constant(np.array(axes, np.int32))], [out], opts, version), [
        drawn(rng, x)
    ]


def faint(rng):
    """Return a mean of values close to a zero point at the end of the grid."""
    x = T((8, 5, 25, 256), "int8", scale(rng), int(rng.choice([-128, 127])))
    fed = np.clip(x.zero + rng.integers(-4, 5, x.shape), -128, 127).astype(np.int8)
    out = T((8, 1, 1, 256), "int8", np.float32(x.scale / rng.uniform(4, 60)), zero(rng, "int8"))
    axes = constant(np.array([1, 2], np.int32))
    return one_op("MEAN", [x, axes], [out], options("Reducer", keepDims=True), 2), [fed]


def function(
    rng,
    name,
    out_step=None,
    out_zero=None,
    opts=None,
    version=1,
    dtype="int8",
    in_step=None,
    in_zero=None,
    shape=(3, 7, 8),
    extra=(),
):
    """Return a file with a function of one value, fed every value there is."""
    x = tensor(rng, shape, dtype)
    if in_zero is not None:
        x.zero = in_zero
    if in_step is not None:
        x.scale = np.float32(in_step)
    step = scale(rng) if out_step is None else out_step
    out = T(shape, dtype, step, zero(rng, dtype) if out_zero is None else out_zero)
    return one_op(name, [x, *extra], [out], opts, version), [drawn(rng, x)]


def resized(rng, name, kind, size, align=False, half=False, dtype="int8"):
    opts = options(kind, alignCorners=align, halfPixelCenters=half)
    out = (2, *size, 3)
    return one_grid(
        rng, name, opts, 3, [np.array(size, np.int32)], shape=(2, 5, 7, 3), out=out, dtype=dtype
    )


def quantized(rng, dtype="int8"):
    out = tensor(rng, (2, 9, 8, 3), dtype)
    x = rng.normal(0, 90 * float(out.scale), out.shape).astype(np.float32)
    x.flat[:20] = (np.arange(20) - 9.5) * out.scale  # ties
    return one_op("QUANTIZE", [T(out.shape, "float32")], [out], options("Quantize"), 1), [x]


def requantized(rng, factor=None, dtypes=("int8", "int8")):
    x = tensor(rng, (2, 9, 8, 3), dtypes[0])
    widths = {"int8": 1.0, "int16": 256.0}
    step = x.scale * (factor or rng.uniform(0.4, 3.0)) * widths[dtypes[0]] / widths[dtypes[1]]
    out = T(x.shape, dtypes[1], np.float32(step), zero(rng, dtypes[1]))
    return one_op("QUANTIZE", [x], [out], options("Quantize"), 2), [drawn(rng, x)]


def dequantized(rng, dtype="int8"):
    x = tensor(rng, (2, 9, 8, 3), dtype)
    file = one_op("DEQUANTIZE", [x], [T(x.shape, "float32")], options("Dequantize"), 2)
    return file, [drawn(rng, x)]


def prelu(rng):
    x = tensor(rng, (2, 9, 8, 3))
    slopes = constant(rng.integers(-128, 128, (1, 1, 3)).astype(np.int8), None, 0.003, 5)
    out = T(x.shape, "int8", x.scale * np.float32(1.3), zero(rng, "int8"))
    return one_op("PRELU", [x, slopes], [out], None, 1), [drawn(rng, x)]


LEAKY = partial(function, name="LEAKY_RELU", version=2)
SOFT = partial(function, name="SOFTMAX", out_step=np.float32(1 / 256), out_zero=-128, version=2)
FINE = {"dtype": "int16", "in_step": 0.0002, "out_step": 0.0002, "out_zero": 0}

CASES: dict[str, Callable] = {
    "conv": conv,
    "conv per tensor": partial(conv, per_channel=False),
    "conv relu, valid, stride 2": partial(conv, act=RELU, padding=VALID, stride=2),
    "conv relu6, dilated": partial(conv, act=RELU6, dilation=2),
    "conv 1x1, batch 4": partial(conv, kernel=1, batch=4, channels=33),
    "conv 5x5 stride 3": partial(conv, kernel=5, stride=3),
    "conv one channel": partial(conv, channels=1, count=1),
    "conv grouped": partial(conv, channels=6, count=4, groups=2),
    "conv int4": partial(conv, wdtype="int4"),
    "conv int4 odd": partial(conv, wdtype="int4", count=3, channels=3),
    "conv saturating": partial(conv, stretch=0.05),
    "conv tiny scale": partial(conv, stretch=1e-3),
    "depthwise": depthwise,
    "depthwise per tensor": partial(depthwise, per_channel=False),
    "depthwise relu, valid, stride 2": partial(depthwise, act=RELU, padding=VALID, stride=2),
    "depthwise relu6, dilated": partial(depthwise, act=RELU6, dilation=2),
    "depthwise multiplier 3": partial(depthwise, multiplier=3),
    "depthwise one channel multiplier": partial(depthwise, channels=1, multiplier=4),
    "depthwise batch 3": partial(depthwise, batch=3, channels=16),
    "depthwise int4": partial(depthwise, wdtype="int4"),
    "dense": dense,
    "dense per tensor": partial(dense, per_channel=False),
    "dense relu": partial(dense, act=RELU),
    "dense rank 3": partial(dense, rank=3),
    "dense no bias": partial(dense, bias=False),
    "dense one row": partial(dense, batch=1, depth=64),
    "dense int4": partial(dense, wdtype="int4", per_channel=False),
    "dense int4 per channel": partial(dense, wdtype="int4"),
    "deconv": deconv,
    "deconv valid": partial(deconv, padding=VALID),
    "deconv per tensor, no bias": partial(deconv, per_channel=False, bias=False),
    "deconv kernel 2": partial(deconv, kernel=2, batch=2),
    "deconv 24 channels": partial(deconv, kernel=2, count=24, batch=2),
    "add": partial(pair, name="ADD", kind="Add"),
    "add relu": partial(pair, name="ADD", kind="Add", act=RELU),
    "add relu6": partial(pair, name="ADD", kind="Add", act=RELU6),
    "add scalar": partial(pair, name="ADD", kind="Add", shapes=((2, 5, 7, 3), ()), fixed=True),
    "add channels": partial(pair, name="ADD", kind="Add", shapes=((2, 5, 7, 3), (3,)), fixed=True),
    "add broadcast": partial(pair, name="ADD", kind="Add", shapes=((2, 5, 7, 3), (2, 1, 1, 3))),
    "sub": partial(pair, name="SUB", kind="Sub"),
    "sub broadcast": partial(pair, name="SUB", kind="Sub", shapes=((1, 1, 3), (2, 5, 7, 3))),
    "mul": partial(pair, name="MUL", kind="Mul"),
    "mul relu": partial(pair, name="MUL", kind="Mul", act=RELU),
    "mul scalar": partial(pair, name="MUL", kind="Mul", shapes=((2, 5, 7, 3), ()), fixed=True),
    "mul gate": partial(pair, name="MUL", kind="Mul", shapes=((2, 5, 7, 3), (2, 1, 1, 3))),
    "matmul": matmul,
    "matmul transposed": partial(matmul, adj_y=True, shapes=((2, 4, 6), (2, 5, 6))),
    "average pool": partial(pool, name="AVERAGE_POOL_2D"),
    "average pool same": partial(pool, name="AVERAGE_POOL_2D", size=3, padding=SAME),
    "average pool relu": partial(pool, name="AVERAGE_POOL_2D", act=RELU, channels=40),
    "max pool": partial(pool, name="MAX_POOL_2D"),
    "max pool same": partial(pool, name="MAX_POOL_2D", size=3, padding=SAME, stride=1),
    "max pool relu6": partial(pool, name="MAX_POOL_2D", act=RELU6),
    "mean": partial(reduced, name="MEAN"),
    "mean own grid": partial(reduced, name="MEAN", same=True),
    "mean dropped": partial(reduced, name="MEAN", keep=False),
    "mean dropped own grid": partial(reduced, name="MEAN", keep=False, same=True),
    "mean last": partial(reduced, name="MEAN", axes=(-1,), keep=False),
    "mean rank 3": partial(reduced, name="MEAN", axes=(1,), keep=False, shape=(2, 17, 5)),
    "mean one axis": partial(reduced, name="MEAN", axes=(1,)),
    "mean 7x7": partial(reduced, name="MEAN", shape=(40, 7, 7, 24)),
    "mean 40 channels": partial(reduced, name="MEAN", shape=(40, 5, 5, 40)),
    "mean of faint values": faint,
    "sum": partial(reduced, name="SUM"),
    "sum last": partial(reduced, name="SUM", axes=(-1,), keep=False),
    "reduce max": partial(reduced, name="REDUCE_MAX", same=True, keep=False),
    "reduce min": partial(reduced, name="REDUCE_MIN", same=True),
    "softmax": partial(SOFT, opts=options("Softmax", beta=1.0)),
    "softmax beta": partial(SOFT, opts=options("Softmax", beta=0.5)),
    "softmax wide": partial(SOFT, opts=options("Softmax", beta=1.0), shape=(3, 300)),
    "logistic": partial(
        function, name="LOGISTIC", out_step=np.float32(1 / 256), out_zero=-128, version=2
    ),
    "tanh": partial(function, name="TANH", out_step=np.float32(1 / 128), out_zero=0, version=2),
    "elu": partial(function, name="ELU"),
    "gelu": partial(function, name="GELU", opts=options("Gelu", approximate=False), version=2),
    "gelu by tanh": partial(function, name="GELU", opts=options("Gelu", approximate=True)),
    "exp": partial(function, name="EXP", in_step=0.03, version=2),
    "log": partial(function, name="LOG", version=2),
    "rsqrt": partial(function, name="RSQRT", version=2, in_zero=-128),
    "hard swish": partial(function, name="HARD_SWISH", opts=options("HardSwish")),
    "hard swish fine": partial(
        function, name="HARD_SWISH", opts=options("HardSwish"), in_step=0.002, out_step=0.01
    ),
    "hard swish coarse": partial(
        function, name="HARD_SWISH", opts=options("HardSwish"), in_step=0.9, out_step=0.3
    ),
    "relu": partial(function, name="RELU", version=2),
    "relu6": partial(function, name="RELU6", version=2),
    "leaky relu": partial(LEAKY, opts=options("LeakyRelu", alpha=0.2)),
    "leaky relu same scale": partial(
        LEAKY, opts=options("LeakyRelu", alpha=0.01), in_step=0.05, out_step=0.05
    ),
    "prelu": prelu,
    "abs": partial(function, name="ABS", version=2),
    "abs same scale": partial(function, name="ABS", version=2, in_step=0.05, out_step=0.05),
    "relu n1 to 1": partial(function, name="RELU_N1_TO_1", version=1),
    "bilinear": partial(resized, name="RESIZE_BILINEAR", kind="ResizeBilinear", size=(10, 14)),
    "bilinear half": partial(
        resized, name="RESIZE_BILINEAR", kind="ResizeBilinear", size=(10, 14), half=True
    ),
    "bilinear align": partial(
        resized, name="RESIZE_BILINEAR", kind="ResizeBilinear", size=(9, 13), align=True
    ),
    "bilinear odd": partial(
        resized, name="RESIZE_BILINEAR", kind="ResizeBilinear", size=(7, 3), half=True
    ),
    "nearest": partial(
        resized, name="RESIZE_NEAREST_NEIGHBOR", kind="ResizeNearestNeighbor", size=(10, 14)
    ),
    "nearest half": partial(
        resized,
        name="RESIZE_NEAREST_NEIGHBOR",
        kind="ResizeNearestNeighbor",
        size=(7, 9),
        half=True,
    ),
    "nearest align": partial(
        resized,
        name="RESIZE_NEAREST_NEIGHBOR",
        kind="ResizeNearestNeighbor",
        size=(8, 3),
        align=True,
    ),
    "quantize": quantized,
    "requantize": requantized,
    "requantize finer": partial(requantized, factor=0.3),
    "dequantize": dequantized,
}

WIDE: dict[str, Callable] = {
    "conv": partial(conv, dtype="int16"),
    "conv relu stride 2": partial(conv, dtype="int16", act=RELU, stride=2, padding=VALID),
    "conv dilated batch": partial(conv, dtype="int16", dilation=2, batch=2),
    "depthwise": partial(depthwise, dtype="int16"),
    "depthwise multiplier": partial(depthwise, dtype="int16", multiplier=2, act=RELU6),
    "dense": partial(dense, dtype="int16"),
    "dense per tensor": partial(dense, dtype="int16", per_channel=False, act=RELU),
    "dense no bias": partial(dense, dtype="int16", bias=False),
    "deconv": partial(deconv, dtype="int16"),
    "add": partial(pair, name="ADD", kind="Add", dtype="int16"),
    "add relu": partial(pair, name="ADD", kind="Add", dtype="int16", act=RELU),
    "add broadcast": partial(
        pair, name="ADD", kind="Add", dtype="int16", shapes=((2, 5, 7, 3), (2, 1, 1, 3))
    ),
    "sub": partial(pair, name="SUB", kind="Sub", dtype="int16"),
    "mul": partial(pair, name="MUL", kind="Mul", dtype="int16", version=4),
    "mul gate": partial(
        pair, name="MUL", kind="Mul", dtype="int16", shapes=((2, 5, 7, 3), (2, 1, 1, 3)), version=4
    ),
    "average pool": partial(pool, name="AVERAGE_POOL_2D", dtype="int16"),
    "max pool": partial(pool, name="MAX_POOL_2D", dtype="int16", act=RELU),
    "mean": partial(reduced, name="MEAN", dtype="int16"),
    "mean dropped": partial(reduced, name="MEAN", dtype="int16", keep=False),
    "reduce max": partial(reduced, name="REDUCE_MAX", dtype="int16", same=True),
    "reduce min": partial(reduced, name="REDUCE_MIN", dtype="int16", same=True),
    "abs": partial(function, name="ABS", version=3, dtype="int16", out_zero=0),
    "gelu": partial(
        function, name="GELU", opts=options("Gelu", approximate=False), version=2, **FINE
    ),
    "gelu by tanh": partial(
        function, name="GELU", opts=options("Gelu", approximate=True), version=2, **FINE
    ),
    "exp": partial(function, name="EXP", version=2, **FINE),
    "softmax": partial(
        function,
        name="SOFTMAX",
        out_step=np.float32(1 / 32768),
        out_zero=0,
        version=3,
        dtype="int16",
        opts=options("Softmax", beta=1.0),
        in_step=0.0006,
    ),
    "softmax long": partial(
        function,
        name="SOFTMAX",
        out_step=np.float32(1 / 32768),
        out_zero=0,
        version=3,
        dtype="int16",
        opts=options("Softmax", beta=1.0),
        in_step=0.0001,
        shape=(4, 200),
    ),
    "logistic": partial(
        function,
        name="LOGISTIC",
        out_step=np.float32(1 / 32768),
        out_zero=0,
        version=3,
        dtype="int16",
        in_step=0.0003,
        shape=(60, 1000),
    ),
    "tanh power of two": partial(
        function,
        name="TANH",
        out_step=np.float32(1 / 32768),
        out_zero=0,
        version=3,
        dtype="int16",
        in_step=2.0**-13,
        shape=(60, 100),
    ),
    "logistic power of two": partial(
        function,
        name="LOGISTIC",
        out_step=np.float32(1 / 32768),
        out_zero=0,
        version=3,
        dtype="int16",
        in_step=2.0**-10,
        shape=(60, 100),
    ),
    "tanh": partial(
        function,
        name="TANH",
        out_step=np.float32(1 / 32768),
        out_zero=0,
        version=3,
        dtype="int16",
        in_step=0.0003,
        shape=(60, 1000),
    ),
    "leaky relu": partial(LEAKY, opts=options("LeakyRelu", alpha=0.2), dtype="int16"),
    "relu": partial(function, name="RELU", version=3, dtype="int16"),
    "bilinear": partial(
        resized,
        name="RESIZE_BILINEAR",
        kind="ResizeBilinear",
        size=(10, 14),
        dtype="int16",
        half=True,
    ),
    "nearest": partial(
        resized,
        name="RESIZE_NEAREST_NEIGHBOR",
        kind="ResizeNearestNeighbor",
        size=(10, 14),
        dtype="int16",
    ),
    "quantize": partial(quantized, dtype="int16"),
    "requantize": partial(requantized, dtypes=("int16", "int16")),
    "requantize up": partial(requantized, dtypes=("int8", "int16")),
    "requantize down": partial(requantized, dtypes=("int16", "int8")),
    "dequantize": partial(dequantized, dtype="int16"),
}
