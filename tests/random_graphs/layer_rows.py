"""Rows of Keras layers that the package knows."""

from __future__ import annotations

from typing import Any

import tf_keras

from tests.random_graphs.rows import (
    FUNCTIONS,
    NAMED,
    Row,
    drawn,
    joins,
    known,
    layer,
    least_size,
    pick,
    rank,
    real,
    roomy,
    same,
)

# Half of all layers have no activation of their own.
USED = (*NAMED, *FUNCTIONS, *["relu"] * 6, *[...] * 20)


def is_ids(x) -> bool:
    """Tell whether a tensor holds the numbers of words."""
    return rank(x) == 2 and getattr(x, "is_ids", False)


def _convolution(sides: int, separable: bool = False, depthwise: bool = False):
    def draw(chance, x) -> dict[str, Any]:
        size = chance.randint(1, least_size(x, 3))
        uneven = sides > 1 and not separable and chance.random() < 0.2
        options = {"kernel_size": (size, *[1] * (sides - 1)) if uneven else size}
        paddings = [..., "same", "same"] + (["causal"] if sides == 1 and not depthwise else [])
        options |= pick(chance, padding=paddings, use_bias=[..., ..., False], activation=USED)
        if chance.random() < 0.3:
            options["strides"] = 2
        elif chance.random() < 0.2 and options.get("padding"):
            options["dilation_rate"] = 2
        if depthwise or separable:
            options |= pick(chance, depth_multiplier=[..., ..., 2])
        if not depthwise:
            options["filters"] = chance.choice((1, 2, 3, 4, 6))
        if not depthwise and not separable and x.shape[-1] % 2 == 0 and chance.random() < 0.15:
            options |= {"groups": 2, "filters": 4}
        return options

    return draw


def _transposed(chance, x) -> dict[str, Any]:
    options = {"filters": chance.choice((1, 2, 4)), "kernel_size": chance.choice((1, 2, 3))}
    choices = {"strides": [..., 2], "padding": [..., "same"], "use_bias": [..., ..., False]}
    return options | pick(chance, activation=USED, **choices)


def _pool(chance, x) -> dict[str, Any]:
    """Draw a window of up to the whole map, and larger ones where padding allows them."""
    options = pick(chance, padding=[..., "same"], strides=[..., 1, 2])
    sizes = [d for d in x.shape[1:-1] if d is not None]
    most = least_size(x, 3) if "padding" not in options else 3
    whole = len(sizes) == rank(x) - 2 and len(set(sizes)) == 1 and chance.random() < 0.3
    return options | {"pool_size": sizes[0] if whole else chance.randint(1, most)}


def _einsum(chance, x) -> dict[str, Any]:
    units, heads = chance.choice((2, 3, 4)), 2
    if rank(x) == 2:
        forms = [("ab,bc->ac", (units,), "c"), ("...x,xy->...y", (units,), "y")]
    else:
        forms = [
            ("abc,cd->abd", (None, units), "d"),
            ("abc,cdh->abdh", (None, heads, units), "dh"),
            ("...x,xy->...y", (None, units), "y"),
            ("abc,dc->abd", (None, units), "d"),
        ]
    equation, shape, axes = chance.choice(forms)
    options = {"equation": equation, "output_shape": shape, **pick(chance, activation=USED)}
    return options | ({"bias_axes": axes} if chance.random() < 0.7 else {})


def _reshape(chance, x) -> dict[str, Any]:
    *sizes, channels = x.shape[1:]
    count = 1
    for size in sizes:
        count *= size
    shapes = [(count, channels), (-1, channels), (count * channels,), (1, count, channels)]
    return {"target_shape": chance.choice([*shapes, (channels, count), (count * channels, 1)])}


def _permute(chance, x) -> dict[str, Any]:
    dims = list(range(1, rank(x)))
    chance.shuffle(dims)
    return {"dims": tuple(dims)}


def _edges(sides: int, name: str):
    def draw(chance, x) -> dict[str, Any]:
        forms: list[Any] = [1, tuple((chance.randint(0, 1), 1) for _ in range(sides))]
        if sides == 1:
            forms[1] = forms[1][0]
        return {name: chance.choice(forms)}

    return draw


def _shared_axes(chance, x) -> dict[str, Any]:
    axes = list(range(1, rank(x) - 1))
    return {"shared_axes": axes} if axes and (None in axes or chance.random() < 0.7) else {}


def _statistics(chance, x) -> dict[str, Any]:
    return chance.choice(({"mean": 0.2, "variance": 1.5}, {}, {"axis": -1}))


NORMS = drawn(
    center=[..., ..., ..., False], scale=[..., ..., ..., False], axis=[..., ..., ..., ..., ..., 1]
)
CLIPS = drawn(
    max_value=[..., ..., 6.0, 6, 2.0], negative_slope=[..., ..., 0.1], threshold=[..., ..., 0.0]
)
GLOBAL = {"keepdims": [..., ..., True], "data_format": [*[...] * 9, "channels_first"]}
ANY = real(2, 3, 4, 5)


def layer_rows(L: Any) -> dict[str, Row]:
    """Return the rows of a module of layers, that of `tf_keras` or of Keras 3."""
    slope = "alpha" if L is tf_keras.layers else "negative_slope"
    return {
        "Conv1D": layer(L.Conv1D, real(3), _convolution(1), weight=3),
        "Conv2D": layer(L.Conv2D, real(4), _convolution(2), weight=4),
        "Conv3D": layer(L.Conv3D, real(5), _convolution(3), weight=3),
        "Conv1DTranspose": layer(L.Conv1DTranspose, real(3), _transposed),
        "Conv2DTranspose": layer(L.Conv2DTranspose, real(4), _transposed),
        "Conv3DTranspose": layer(L.Conv3DTranspose, roomy(5, 1), _transposed),
        "DepthwiseConv1D": layer(L.DepthwiseConv1D, real(3), _convolution(1, depthwise=True)),
        "DepthwiseConv2D": layer(
            L.DepthwiseConv2D, real(4), _convolution(2, depthwise=True), weight=2
        ),
        "SeparableConv1D": layer(L.SeparableConv1D, real(3), _convolution(1, True)),
        "SeparableConv2D": layer(L.SeparableConv2D, real(4), _convolution(2, True)),
        "Dense": layer(
            L.Dense,
            ANY,
            drawn(units=[1, 2, 3, 5], activation=USED, use_bias=[..., False]),
            weight=3,
        ),
        "EinsumDense": layer(L.EinsumDense, real(2, 3), _einsum),
        "Embedding": layer(
            L.Embedding,
            is_ids,
            drawn(input_dim=[10], output_dim=[3, 4, 6], mask_zero=[..., True]),
            weight=12,
        ),
        "PReLU": layer(L.PReLU, known(2, 3, 4), _shared_axes),
        **{
            name: layer(
                getattr(L, name), real(2, 3, 4, 5), listed=True, pairs=same, most=3, weight=2
            )
            for name in ("Add", "Multiply", "Maximum")
        },
        **{
            name: layer(getattr(L, name), real(2, 3, 4, 5), listed=True, pairs=same)
            for name in ("Subtract", "Minimum")
        },
        "Concatenate": layer(
            L.Concatenate, ANY, drawn(axis=[..., -1]), listed=True, pairs=joins, most=3, weight=2
        ),
        "Concatenate 1": layer(L.Concatenate, real(3, 4), drawn(axis=[1]), listed=True, pairs=same),
        "MaxPooling1D": layer(L.MaxPooling1D, real(3), _pool, weight=2),
        "MaxPooling2D": layer(L.MaxPooling2D, real(4), _pool, weight=2),
        "AveragePooling1D": layer(L.AveragePooling1D, real(3), _pool, weight=2),
        "AveragePooling2D": layer(L.AveragePooling2D, real(4), _pool, weight=2),
        **{
            name: layer(getattr(L, name), real(rank), drawn(**GLOBAL), weight=2)
            for rank, names in (
                (3, ("GlobalMaxPooling1D", "GlobalAveragePooling1D")),
                (4, ("GlobalMaxPooling2D", "GlobalAveragePooling2D")),
            )
            for name in names
        },
        "Reshape": layer(L.Reshape, known(2, 3, 4, 5), _reshape),
        "Flatten": layer(L.Flatten, known(2, 3, 4, 5), weight=2),
        "Permute": layer(L.Permute, known(2, 3, 4), _permute),
        "RepeatVector": layer(L.RepeatVector, real(2), drawn(n=[1, 3, 5]), weight=2),
        "ZeroPadding1D": layer(L.ZeroPadding1D, real(3), _edges(1, "padding")),
        "ZeroPadding2D": layer(L.ZeroPadding2D, real(4), _edges(2, "padding")),
        "ZeroPadding3D": layer(L.ZeroPadding3D, real(5), _edges(3, "padding")),
        "Cropping1D": layer(L.Cropping1D, roomy(3, 3), _edges(1, "cropping")),
        "Cropping2D": layer(L.Cropping2D, roomy(4, 3), _edges(2, "cropping")),
        "Cropping3D": layer(L.Cropping3D, roomy(5, 3), _edges(3, "cropping")),
        "UpSampling1D": layer(L.UpSampling1D, real(3), drawn(size=[..., 2, 3]), weight=0.5),
        "UpSampling2D": layer(
            L.UpSampling2D, real(4), drawn(size=[..., 2, (1, 3)], interpolation=[..., "bilinear"])
        ),
        "Resizing": layer(
            L.Resizing,
            real(4),
            lambda chance, x: {
                "height": chance.choice((3, 4, 7)),
                "width": chance.choice((2, 5, 8)),
                **pick(chance, interpolation=[..., "nearest", "bicubic"]),
                **pick(chance, crop_to_aspect_ratio=[..., ..., True]),
            },
            weight=0.7,
        ),
        **{
            name: layer(getattr(L, name), real(*ranks), drawn(**{argument: [0.2]}), weight=0.4)
            for name, argument, ranks in (
                ("Dropout", "rate", (2, 3, 4, 5)),
                ("SpatialDropout1D", "rate", (3,)),
                ("SpatialDropout2D", "rate", (4,)),
                ("SpatialDropout3D", "rate", (5,)),
                ("GaussianNoise", "stddev", (2, 3, 4, 5)),
                ("GaussianDropout", "rate", (2, 3, 4, 5)),
                ("AlphaDropout", "rate", (2, 3, 4, 5)),
                ("ActivityRegularization", "l2", (2, 3, 4, 5)),
            )
        },
        "BatchNormalization": layer(L.BatchNormalization, ANY, NORMS, weight=4),
        "LeakyReLU": layer(L.LeakyReLU, ANY, drawn(**{slope: [0.1, 0.3, 0.0]})),
        "Activation": layer(L.Activation, ANY, drawn(activation=[*NAMED, *FUNCTIONS]), weight=2),
        "ReLU": layer(L.ReLU, ANY, CLIPS, weight=2),
        "Softmax": layer(L.Softmax, ANY, drawn(axis=[..., ..., 1])),
        "Rescaling": layer(
            L.Rescaling, ANY, drawn(scale=[0.5, 1 / 2.0, -2.0], offset=[..., -1.0, 0.3])
        ),
        "Normalization": layer(L.Normalization, known(2, 3, 4), _statistics),
        "Masking": layer(L.Masking, real(3), drawn(mask_value=[..., 0.0]), weight=1.5),
    }
