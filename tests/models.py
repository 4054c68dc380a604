"""One tiny model per hazard: what real Keras models contain and a quantizer can get wrong.

`HAZARDS` maps a name to its builder. Weights are random but like trained ones (`train_like`), and
the same on every call.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

L = tf_keras.layers
Input = tf_keras.Input

# How weights that are no kernels are drawn, by the end of their name.
DRAWS = {
    "gamma": lambda rng, shape: rng.uniform(0.5, 1.5, shape),
    "beta": lambda rng, shape: rng.normal(0.0, 0.3, shape),
    "moving_mean": lambda rng, shape: rng.normal(0.0, 0.3, shape),
    "moving_variance": lambda rng, shape: rng.uniform(0.3, 1.5, shape),
    "mean": lambda rng, shape: rng.normal(0.0, 0.3, shape),
    "variance": lambda rng, shape: rng.uniform(0.3, 1.5, shape),
    "bias": lambda rng, shape: rng.normal(0.0, 0.1, shape),
    "alpha": lambda rng, shape: rng.uniform(0.05, 0.4, shape),
    "count": lambda rng, shape: np.full(shape, 100),
}


def train_like(model, seed=0):
    """Give `model` weights as after training: statistics and offsets differ between channels."""
    rng = np.random.default_rng(seed)

    def draw(weight):
        name = weight.name.rpartition("/")[2].partition(":")[0]
        shape = tuple(weight.shape)
        if name in DRAWS:
            return DRAWS[name](rng, shape)
        depthwise = "depthwise" in name
        fan_in = np.prod(shape[:-2] if depthwise else shape[:-1]) if len(shape) > 1 else 1
        return rng.normal(0.0, np.sqrt(2.0 / max(fan_in, 1)), shape)

    model.set_weights([draw(w) for w in model.weights])
    return model


def inputs_for(model, samples=16, seed=0):
    """Return random inputs in the structure of `model.input_names`: an array, or a dict by name."""
    rng = np.random.default_rng(seed)

    def draw(symbol):
        shape = (samples, *(5 if d is None else d for d in symbol.shape[1:]))
        if symbol.dtype.is_integer:
            return rng.integers(0, 10, shape).astype(symbol.dtype.as_numpy_dtype)
        return rng.normal(size=shape).astype(symbol.dtype.as_numpy_dtype)

    arrays = [draw(symbol) for symbol in model.inputs]
    return arrays[0] if len(arrays) == 1 else dict(zip(model.input_names, arrays, strict=True))


def batch_norm(x, name=None):
    return L.BatchNormalization(name=name)(x)


def residual():
    """Residual block of depthwise and pointwise convolutions, as in MobileNetV2."""
    x = Input((8, 8, 3), name="image")
    stem = L.ReLU(6.0)(batch_norm(L.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(x)))
    y = L.Conv2D(8, 1, use_bias=False)(stem)
    y = L.ReLU(6.0)(batch_norm(y))
    y = L.ReLU(6.0)(batch_norm(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
    y = batch_norm(L.Conv2D(4, 1, use_bias=False)(y))
    y = L.Add(name="skip")([stem, y])
    y = L.Dense(3, activation="softmax", name="scores")(L.GlobalAveragePooling2D()(y))
    return tf_keras.Model(x, y)


def sequential():
    return tf_keras.Sequential([
        Input((8, 8, 3)),
        L.Conv2D(4, 3, activation="relu", name="conv"),
        L.BatchNormalization(),
        L.MaxPooling2D(),
        L.Flatten(),
        L.Dropout(0.5),
        L.Dense(3, name="head"),
    ])  # fmt: skip


def shared_layer():
    """One convolution and its batch norm called on two branches."""
    a, b = Input((6, 6, 2), name="a"), Input((6, 6, 2), name="b")
    conv, norm = L.Conv2D(4, 3, name="conv"), L.BatchNormalization(name="norm")
    ya, yb = norm(conv(a)), norm(conv(b))
    return tf_keras.Model([a, b], L.Concatenate(name="joined")([ya, yb]))


def shared_in_series():
    """One dense layer called on its own output."""
    x = Input((6,))
    dense = L.Dense(6, activation="relu", name="dense")
    return tf_keras.Model(x, dense(dense(x)))


def _encoder(name, units):
    x = Input((6,))
    y = L.Dense(units, activation="relu", name="dense")(x)
    return tf_keras.Model(x, L.BatchNormalization(name="norm")(y), name=name)


def nested_same_names():
    """Two inner models whose layers have the same names."""
    x = Input((6,))
    left, right = _encoder("left", 5)(x), _encoder("right", 5)(x)
    return tf_keras.Model(x, L.Dense(2, name="dense")(L.Add(name="sum")([left, right])))


def nested_twice():
    """An inner model called on two inputs, and inside it another model."""
    inner = _encoder("inner", 4)
    x = Input((6,))
    outer = tf_keras.Model(x, L.Dense(3, name="dense")(inner(x)), name="outer")
    a, b = Input((6,), name="a"), Input((6,), name="b")
    return tf_keras.Model([a, b], L.Subtract(name="distance")([outer(a), outer(b)]))


def nested_sequential():
    x = Input((8, 8, 3))
    inner = tf_keras.Sequential([L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU()], name="block")
    return tf_keras.Model(x, L.GlobalMaxPooling2D()(inner(x)))


def transfer():
    """A frozen backbone below a new head, called with `training=False` as the Keras guide says."""
    backbone = residual()
    image = backbone.input
    features = backbone.get_layer("skip").output
    backbone = tf_keras.Model(image, features, name="backbone")
    backbone.trainable = False
    x = Input((8, 8, 3), name="photo")
    y = L.GlobalAveragePooling2D()(backbone(x, training=False))
    return tf_keras.Model(x, L.Dense(2, name="head")(L.Dropout(0.2)(y)))


def unsorted_inputs():
    """Inputs whose order is not alphabetical, and of different shapes."""
    z, a = Input((4,), name="zebra"), Input((3,), name="ant")
    y = L.Concatenate(name="both")([L.Dense(4, name="dz")(z), L.Dense(3, name="da")(a)])
    return tf_keras.Model([z, a], L.Dense(2, name="head")(y))


def several_outputs():
    x = Input((6, 6, 2))
    y = L.Conv2D(4, 3, activation="relu", name="trunk")(x)
    boxes = L.Conv2D(2, 1, name="boxes")(y)
    return tf_keras.Model(x, [boxes, L.GlobalAveragePooling2D(name="score")(y)])


def dicts():
    """Inputs and outputs as dictionaries."""
    inputs = {"wide": Input((4,), name="wide"), "deep": Input((3,), name="deep")}
    hidden = L.Dense(4, activation="tanh", name="hidden")(inputs["deep"])
    y = L.Add(name="mixed")([hidden, inputs["wide"]])
    outputs = {"logit": L.Dense(1, name="logit")(y), "class": L.Dense(3, name="class")(y)}
    return tf_keras.Model(inputs, outputs)


def fused_activations():
    """Activations given by `activation=`, as names and as functions."""
    x = Input((8, 8, 2))
    y = L.Conv2D(4, 3, activation="relu", name="relu")(x)
    y = L.Conv2D(4, 1, activation=tf.nn.relu6, name="relu6")(y)
    y = L.Conv2D(4, 1, activation="swish", name="swish")(y)
    y = L.DepthwiseConv2D(3, activation="tanh", name="tanh")(y)
    y = L.Conv2D(4, 1, activation="gelu", name="gelu")(y)
    y = L.Flatten()(y)
    return tf_keras.Model(x, L.Dense(3, activation="softmax", name="softmax")(y))


def separate_activations():
    x = Input((8, 8, 2))
    y = L.Activation("relu", name="relu")(L.Conv2D(4, 3, name="conv")(x))
    y = L.ReLU(6.0, name="relu6")(L.Conv2D(4, 1)(y))
    y = L.LeakyReLU(0.1, name="leaky")(L.Conv2D(4, 1)(y))
    y = L.Activation("swish", name="swish")(L.Conv2D(4, 1)(y))
    y = L.Activation("sigmoid", name="sigmoid")(L.Conv2D(4, 1)(y))
    y = L.ReLU(2.0, name="capped")(L.Conv2D(4, 1)(y))
    return tf_keras.Model(x, L.Softmax(name="softmax")(L.Conv2D(4, 1)(y)))


def op_layers():
    """TensorFlow functions and Python operators on Keras tensors."""
    x = Input((8, 8, 4))
    y = L.Conv2D(4, 3, padding="same", name="conv")(x)
    y = tf.nn.relu(y + x)
    first, second = tf.split(y, 2, axis=-1)
    y = tf.concat([first * 0.5, 1.0 - second, y[:, :, :, 1:3]], axis=-1)
    y = tf.reduce_mean(y, axis=[1, 2])
    y = tf.reshape(y, [-1, 6])
    return tf_keras.Model(x, L.Dense(2, name="head")(y))


def op_constants():
    """Constants: scalars, one per channel, left and right of the operator."""
    x = Input((4, 4, 3), name="image")
    y = x / 255.0 - tf.constant([0.4, 0.5, 0.6])
    y = L.Conv2D(3, 1, name="conv")(y * tf.constant([2.0, 1.0, 0.5]))
    y = tf.constant([1.0, 2.0, 3.0]) - y
    return tf_keras.Model(x, 2.0 * y + 1.0)


def op_silu():
    x = Input((6,))
    return tf_keras.Model(x, L.Dense(2)(tf.nn.silu(L.Dense(5)(x))))


def separable():
    a, b = Input((8, 8, 3), name="image"), Input((9, 3), name="signal")
    ya = L.SeparableConv2D(4, 3, depth_multiplier=2, activation="relu", name="two")(a)
    yb = L.SeparableConv1D(4, 3, padding="same", use_bias=False, name="one")(b)
    y = L.Concatenate()([L.GlobalAveragePooling2D()(ya), L.GlobalMaxPooling1D()(yb)])
    return tf_keras.Model([a, b], y)


def conv1d():
    x = Input((12, 3))
    y = L.Conv1D(4, 3, padding="causal", dilation_rate=2, use_bias=False)(x)
    y = L.ReLU()(batch_norm(y))
    y = L.MaxPooling1D()(L.DepthwiseConv1D(3, depth_multiplier=2, name="depthwise")(y))
    return tf_keras.Model(x, L.AveragePooling1D(2)(y))


def conv3d():
    x = Input((4, 5, 6, 2))
    y = L.ReLU()(batch_norm(L.Conv3D(3, 2, use_bias=False)(x)))
    return tf_keras.Model(x, L.Dense(2)(L.Flatten()(y)))


def transposed():
    a, b = Input((4, 4, 3), name="image"), Input((5, 3), name="signal")
    ya = batch_norm(L.Conv2DTranspose(4, 3, strides=2, name="two")(a))
    yb = batch_norm(L.Conv1DTranspose(4, 3, strides=2, padding="same", name="one")(b))
    return tf_keras.Model([a, b], [L.ReLU()(ya), yb])


def transposed3d():
    x = Input((2, 3, 3, 2))
    y = L.ReLU()(batch_norm(L.Conv3DTranspose(3, 2, use_bias=False)(x)))
    return tf_keras.Model(x, L.Dense(2)(y))


def depth_multiplier():
    x = Input((6, 6, 3))
    y = L.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depthwise")(x)
    return tf_keras.Model(x, L.ReLU()(batch_norm(y)))


def grouped():
    x = Input((6, 6, 4))
    return tf_keras.Model(x, L.ReLU()(batch_norm(L.Conv2D(6, 3, groups=2, name="conv")(x))))


def dense_rank3():
    x = Input((5, 6))
    y = batch_norm(L.Dense(4, use_bias=False, name="dense")(x))
    return tf_keras.Model(x, L.Dense(3, activation="relu", name="head")(y))


def dense_batch_norm():
    x = Input((6,))
    y = L.Activation("relu")(batch_norm(L.Dense(8, use_bias=False, name="dense")(x)))
    return tf_keras.Model(x, L.Dense(3, name="head")(batch_norm(y, name="standalone")))


def einsum_dense():
    x = Input((5, 6))
    y = L.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d", name="plain")(x)
    y = L.EinsumDense("abd,dnh->abnh", output_shape=(None, 2, 3), bias_axes="nh", name="heads")(y)
    return tf_keras.Model(x, y)


def embedding():
    x = Input((7,), dtype="int32", name="tokens")
    y = L.Embedding(10, 6, name="embedding")(x)
    y = L.Conv1D(4, 3, activation="relu", name="conv")(y)
    return tf_keras.Model(x, L.Dense(2, name="head")(L.GlobalAveragePooling1D()(y)))


def prelu():
    x = Input((6, 6, 2))
    y = L.PReLU(shared_axes=[1, 2], name="prelu")(L.Conv2D(4, 3, name="conv")(x))
    return tf_keras.Model(x, L.Dense(2, name="head")(L.Flatten()(y)))


@tf.function
def closed_softplus(t):
    """A function that no symbolic call follows, and a file holds all the same."""
    return tf.math.softplus(t)


def lambda_island():
    """A layer that nothing is known about, between two that are."""
    x = Input((6,))
    y = L.Dense(4, name="before")(x)
    y = L.Lambda(lambda t: closed_softplus(t), name="island")(y)
    return tf_keras.Model(x, L.Dense(2, name="after")(y))


def recurrent():
    x = Input((5, 4))
    y = L.Dense(4, name="before")(x)
    y = L.LSTM(3, return_sequences=True, name="lstm")(y)
    y = L.GRU(3, name="gru")(y)
    return tf_keras.Model(x, L.Dense(2, name="after")(y))


def attention():
    x = Input((5, 4))
    y = L.MultiHeadAttention(2, 3, name="attention")(x, x)
    y = L.LayerNormalization(name="norm")(L.Add(name="skip")([x, y]))
    return tf_keras.Model(x, L.Dense(2, name="after")(y))


def one_channel():
    """Tensors with one channel, where per-channel and per-tensor shapes can be confused."""
    x = Input((6, 6, 1))
    y = L.Conv2D(1, 3, use_bias=False, name="conv")(x)
    y = L.ReLU()(batch_norm(y))
    return tf_keras.Model(x, L.Dense(1, name="dense")(L.DepthwiseConv2D(3, name="deep")(y)))


def dynamic_size():
    """Height, width and length unknown until called."""
    x = Input((None, None, 2))
    y = L.ReLU()(batch_norm(L.Conv2D(3, 3, padding="same")(x)))
    return tf_keras.Model(x, L.GlobalAveragePooling2D()(batch_norm(y, "standalone")))


def zero_channel():
    """A kernel channel that is all zero."""
    x = Input((6, 6, 2))
    model = tf_keras.Model(x, L.Conv2D(4, 3, name="conv")(x))
    kernel, bias = train_like(model).get_weights()
    kernel[..., 1] = 0.0
    model.set_weights([kernel, bias])
    return model


def dead_channel():
    """A channel of tiny weights under a large bias, as a folded dead batch norm leaves."""
    x = Input((6, 6, 2))
    model = tf_keras.Model(x, L.Conv2D(4, 3, name="conv")(x))
    kernel, bias = train_like(model).get_weights()
    kernel[..., 1], bias[1] = 1e-12 * kernel[..., 1], 3.0
    model.set_weights([kernel, bias])
    return model


def constant_activation():
    """A tensor that is the same number everywhere, and one that is zero."""
    x = Input((6,))
    model = tf_keras.Model(x, [L.Dense(3, name="constant")(x), L.Dense(3, name="zero")(x)])
    model.set_weights([np.zeros((6, 3)), np.full(3, 2.5), np.zeros((6, 3)), np.zeros(3)])
    return model


def mixed_precision():
    """Layers under the policy mixed_float16, the last one in float32."""
    x = Input((6, 6, 2))
    half = {"dtype": "mixed_float16"}
    y = L.Conv2D(4, 3, use_bias=False, name="conv", **half)(x)
    y = L.ReLU(name="relu", **half)(L.BatchNormalization(name="norm", **half)(y))
    y = L.GlobalAveragePooling2D(name="pool", **half)(y)
    return tf_keras.Model(x, L.Dense(2, dtype="float32", name="head")(y))


def batch_norm_first():
    """Batch norm and ReLU before the convolution, as in DenseNet."""
    x = Input((6, 6, 3))
    y = L.Conv2D(4, 3, padding="same", name="one")(L.ReLU(name="relu")(batch_norm(x, "standalone")))
    y = L.Concatenate(name="dense")([x, y])
    y = L.ReLU()(batch_norm(y, "second"))
    return tf_keras.Model(x, L.Conv2D(2, 1, name="two")(y))


def batch_norm_after_add():
    x = Input((6, 6, 2))
    y = L.Add(name="sum")([L.Conv2D(2, 3, padding="same", name="conv")(x), x])
    return tf_keras.Model(x, L.ReLU(name="relu")(batch_norm(y, "after_add")))


def batch_norm_two_readers():
    """A convolution read by its batch norm and by another layer: folding would change the other."""
    x = Input((6, 6, 2))
    y = L.Conv2D(3, 3, name="conv")(x)
    return tf_keras.Model(x, L.Add()([L.ReLU()(batch_norm(y, "norm")), L.ReLU()(y)]))


def forward_conv():
    x = Input((6, 6, 3))
    return tf_keras.Model(x, L.Conv2D(4, 3, name="conv")(batch_norm(L.ReLU()(x), "norm")))


def forward_padded_conv():
    """A padded convolution pads zeros after the batch norm, so the fold is not exact."""
    x = Input((6, 6, 3))
    y = batch_norm(L.ReLU()(x), "norm")
    return tf_keras.Model(x, L.Conv2D(4, 3, padding="same", name="conv")(y))


def forward_depthwise():
    x = Input((6, 6, 3))
    y = batch_norm(L.ReLU()(x), "norm")
    return tf_keras.Model(x, L.DepthwiseConv2D(3, depth_multiplier=2, name="conv")(y))


def forward_dense():
    x = Input((6,))
    return tf_keras.Model(x, L.Dense(4, name="dense")(batch_norm(L.ReLU()(x), "norm")))


def forward_flatten():
    x = Input((4, 5, 3))
    y = L.Flatten(name="flat")(batch_norm(L.ReLU()(x), "norm"))
    return tf_keras.Model(x, L.Dense(4, name="dense")(y))


def pools():
    x = Input((8, 8, 3))
    y = L.Conv2D(4, 1, name="conv")(x)
    outputs = [
        L.MaxPooling2D(name="max")(y),
        L.AveragePooling2D(3, padding="same", name="average")(y),
        L.GlobalMaxPooling2D(name="global_max")(y),
        L.GlobalAveragePooling2D(keepdims=True, name="global_average")(y),
    ]
    return tf_keras.Model(x, outputs)


def upsampling():
    x = Input((4, 4, 2))
    y = L.Conv2D(3, 1, name="conv")(x)
    nearest = L.UpSampling2D(2, name="nearest")(y)
    bilinear = L.UpSampling2D(2, interpolation="bilinear", name="bilinear")(y)
    return tf_keras.Model(x, L.Add(name="sum")([nearest, bilinear]))


def pools3d():
    x = Input((5, 5, 5, 2))
    y = L.Conv3D(4, 2, name="conv")(x)
    y = L.Concatenate()([L.MaxPooling3D(name="max")(y), L.AveragePooling3D(name="average")(y)])
    y = L.UpSampling3D((1, 2, 1), name="up")(L.Conv3D(3, 1, name="last")(y))
    ends = [L.GlobalMaxPooling3D()(y), L.GlobalAveragePooling3D()(y)]
    return tf_keras.Model(x, [*ends, L.AveragePooling3D((2, 4, 2), name="whole")(y)])


def moves():
    """Layers that only move numbers."""
    x = Input((6, 6, 2))
    y = L.Conv2D(4, 3, name="conv")(L.ZeroPadding2D(1, name="pad")(x))
    y = L.Permute((2, 1, 3), name="turn")(L.Cropping2D(1, name="crop")(y))
    y = L.Reshape((16, 4), name="reshape")(y)
    return tf_keras.Model(x, L.Conv1D(3, 3, name="last")(y))


def more_moves():
    """Functions that only move numbers, one of them with a shape that is computed."""
    x = Input((4, 4, 3))
    y = tf.roll(L.Conv2D(4, 3, padding="same", name="conv")(x), 1, axis=1)
    y = tf.reverse(tf.nn.space_to_depth(y, 2), axis=[1, 3])
    y = tf.gather(tf.nn.depth_to_space(y, 2), [3, 0, 0], axis=-1)
    rows = tf.unstack(tf.cast(y, tf.float32), axis=1)
    y = tf.image.flip_left_right(tf.stack([rows[2], rows[0]], axis=1))
    y = tf.reduce_min(tf.repeat(y, [1, 2], axis=1), axis=1, keepdims=True)
    y = tf.broadcast_to(y, tf.concat([tf.shape(y)[:1], [2, 4, 3]], 0))
    return tf_keras.Model(x, L.Conv2D(3, 2, name="last")(y))


def caps():
    """Activations that cut off at other numbers than 0 and 6, behind layers and behind a pool."""
    x = Input((8, 8, 2))
    y = L.ReLU(1.0, name="cap")(L.Conv2D(4, 3, name="conv")(x))
    y = tf.clip_by_value(L.Conv2D(4, 1)(y), -0.5, 1.5)
    y = tf.clip_by_value(L.MaxPooling2D()(L.Conv2D(4, 1)(y)), -1.0, 1.0)
    y = tf.minimum(tf.maximum(L.Conv2D(4, 1)(y), 0.0), 2.0)
    return tf_keras.Model(x, L.Conv2D(2, 1, name="last")(y))


def written_out():
    """Arithmetic that is written with other operations."""
    x = Input((5, 4))
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    y = L.Average(name="average")([a, b, x])
    y = tf.add_n([y, -tf.math.squared_difference(a, b), tf.abs(b) ** 2])
    scores = tf.einsum("bic,bjc->bij", a, y) + L.Dot(axes=2, name="dot")([a, b])
    y = tf.nn.bias_add(tf.reduce_sum(scores, axis=1), np.linspace(-1.0, 1.0, 5, dtype=np.float32))
    return tf_keras.Model(x, L.Dense(2, name="head")(y))


def fixed_meets_free():
    """Concat of a sigmoid, whose range is fixed, and a convolution, whose range is free."""
    x = Input((6, 6, 2))
    gate = L.Activation("sigmoid", name="gate")(L.Conv2D(2, 1, name="to_gate")(x))
    y = L.Concatenate(name="joined")([gate, L.Conv2D(2, 1, name="free")(x)])
    return tf_keras.Model(x, L.Conv2D(2, 1, name="last")(y))


def preprocessing():
    image, table = Input((4, 4, 3), name="image"), Input((5,), name="table")
    y = L.Conv2D(4, 3, name="conv")(L.Rescaling(1 / 2.0, offset=-1.0, name="rescale")(image))
    z = L.Dense(4, name="dense")(L.Normalization(name="normalize")(table))
    return tf_keras.Model([image, table], L.Add(name="sum")([L.GlobalMaxPooling2D()(y), z]))


BUILDERS = (
    residual, sequential, shared_layer, shared_in_series, nested_same_names, nested_twice,
    nested_sequential, transfer, unsorted_inputs, several_outputs, dicts, fused_activations,
    separate_activations, op_layers, op_constants, op_silu, separable, conv1d, conv3d, transposed,
    transposed3d, depth_multiplier, grouped, dense_rank3, dense_batch_norm, einsum_dense, embedding,
    prelu, lambda_island, recurrent, attention, one_channel, dynamic_size, mixed_precision,
    batch_norm_first, batch_norm_after_add, batch_norm_two_readers, forward_conv,
    forward_padded_conv, forward_depthwise, forward_dense, forward_flatten, pools, pools3d,
    upsampling, moves, more_moves, caps, written_out, fixed_meets_free, preprocessing,
)  # fmt: skip
FIXED_WEIGHTS = (zero_channel, dead_channel, constant_activation)
HAZARDS = {build.__name__: build for build in (*BUILDERS, *FIXED_WEIGHTS)}


def make(hazard):
    """Return the hazard's model with trained-like weights."""
    build = HAZARDS[hazard]
    return build() if build in FIXED_WEIGHTS else train_like(build())
