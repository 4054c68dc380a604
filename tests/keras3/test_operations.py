"""Every function of `keras.ops` has a form in `tf_keras`, or is refused by name."""

from random import Random

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import SimMismatchError, UnsupportedModelError
from tests.random_graphs.keras_ops_rows import words
from tests.random_graphs.table import table_of

keras = pytest.importorskip("keras", minversion="3.0")
ops = keras.ops
pytestmark = pytest.mark.filterwarnings("ignore")  # Keras 3 of sizes and masks

ROWS = {name: row for name, row in table_of("keras").items() if name.startswith("ops.")}
SHAPES = ((4, 6, 4), (4,), (4, 4, 3), (4, 6, 3), (5, 4), (4, 4), (4, 3), (1, 4), (1, 4, 4))
# What makes no tensor of a symbolic one: it asks about it, or makes constants.
NO_TENSORS = set(
    words("""
    allclose arange bartlett blackman convert_to_numpy dtype empty eye full geomspace hamming
    hanning identity is_tensor kaiser linspace logspace ndim ones shape tri zeros image linalg nn
    numpy custom_gradient vectorize
    """)
)
# Rows that are refused: Keras computes them in ways that no symbolic tensor goes through.
REFUSED = set(
    words("""
    ops.conv_transpose ops.cross ops.digitize ops.gcd ops.isin ops.kron ops.lcm ops.nanargmax
    ops.nanargmin ops.nanmedian ops.nanpercentile ops.nanquantile
    """)
)


GIVEN = []  # the inputs that a call of `RARE` made


def fixed(*sizes, **options):
    """Return an input of a known batch size, which some functions need."""
    GIVEN.append(keras.Input(batch_shape=sizes, **options))
    return GIVEN[-1]


def image(*sizes, **options):
    return fixed(None, *sizes, **options)


# What is rare in networks for devices, by name: the tensors, and the call.
RARE = {
    "argpartition": lambda: ops.argpartition(image(5), 2),
    "associative_scan": lambda: ops.associative_scan(ops.add, fixed(4, 3), axis=0),
    "bincount": lambda: ops.bincount(fixed(8, dtype="int32"), minlength=4),
    "binary_crossentropy": lambda: ops.binary_crossentropy(image(4), ops.sigmoid(image(4))),
    "broadcast_to": lambda: ops.broadcast_to(fixed(1, 4), (3, 4)),
    "categorical_crossentropy": lambda: ops.categorical_crossentropy(
        ops.softmax(image(4)), ops.softmax(image(4))
    ),
    "cholesky_inverse": lambda: ops.cholesky_inverse(image(3, 3)),
    "cond": lambda: ops.cond(fixed(dtype="bool"), lambda: ops.ones(3), lambda: ops.zeros(3)),
    "corrcoef": lambda: ops.corrcoef(fixed(3, 5)),
    "correlate": lambda: ops.correlate(fixed(6), fixed(3)),
    "ctc_decode": lambda: ops.ctc_decode(image(6, 4), fixed(None, dtype="int32"))[0],
    "ctc_loss": lambda: ops.ctc_loss(
        image(3, dtype="int32"), image(6, 4), fixed(None, dtype="int32"), fixed(None, dtype="int32")
    ),
    "diag": lambda: ops.diag(fixed(4)),
    "diagflat": lambda: ops.diagflat(fixed(4)),
    "eig": lambda: ops.eig(image(3, 3))[0],
    "eigh": lambda: ops.eigh(image(3, 3))[0],
    "extract_sequences": lambda: ops.extract_sequences(image(12), 4, 2),
    "fft": lambda: ops.fft((image(8), image(8)))[0],
    "fft2": lambda: ops.fft2((image(4, 4), image(4, 4)))[0],
    "fold": lambda: ops.fold(image(8, 4), (3, 3), 2),
    "fori_loop": lambda: ops.fori_loop(0, 3, lambda i, x: x + 1.0, image(4)),
    "histogram": lambda: ops.histogram(fixed(8), bins=4)[0],
    "ifft2": lambda: ops.ifft2((image(4, 4), image(4, 4)))[0],
    "irfft": lambda: ops.irfft((image(5), image(5))),
    "istft": lambda: ops.istft((image(5, 5), image(5, 5)), 8, 2, 8),
    "jvp": lambda: ops.jvp(ops.tanh, (image(4),), (image(4),))[0],
    "lstsq": lambda: ops.lstsq(fixed(4, 3), fixed(4, 2)),
    "lu_factor": lambda: ops.lu_factor(image(3, 3))[0],
    "map": lambda: ops.map(lambda x: x * 2.0, fixed(4, 3)),
    "matrix_rank": lambda: ops.matrix_rank(image(3, 3)),
    "meshgrid": lambda: ops.meshgrid(fixed(3), fixed(4))[0],
    "nonzero": lambda: ops.nonzero(fixed(4, 3))[0],
    "pinv": lambda: ops.pinv(image(4, 3)),
    "polar": lambda: ops.polar(image(4), image(4)),
    "psnr": lambda: ops.psnr(image(4, 4, 3), image(4, 4, 3), 1.0),
    "qr": lambda: ops.qr(image(4, 3))[0],
    "rearrange": lambda: ops.rearrange(fixed(2, 4, 3), "b h c -> b c h"),
    "rfft": lambda: ops.rfft(image(8))[0],
    "scan": lambda: ops.scan(lambda c, x: (c + x, c), fixed(3), fixed(4, 3))[0],
    "scatter": lambda: ops.scatter(fixed(2, 1, dtype="int32"), fixed(2), (4,)),
    "scatter_update": lambda: ops.scatter_update(fixed(4), fixed(2, 1, dtype="int32"), fixed(2)),
    **{
        f"segment_{n}": lambda n=n: getattr(ops, f"segment_{n}")(
            fixed(6, 2), fixed(6, dtype="int32"), 3
        )
        for n in ("max", "min", "prod", "sum")
    },
    "size": lambda: ops.size(fixed(4, 3)),
    "slice": lambda: ops.slice(fixed(4, 3), [1, 0], [2, 3]),
    "slice_update": lambda: ops.slice_update(fixed(4, 3), [1, 0], fixed(2, 3)),
    "slogdet": lambda: ops.slogdet(image(3, 3))[1],
    "solve_triangular": lambda: ops.solve_triangular(image(3, 3), image(3, 2)),
    "sparse_categorical_crossentropy": lambda: ops.sparse_categorical_crossentropy(
        fixed(None, dtype="int32"), ops.softmax(image(4))
    ),
    "stft": lambda: ops.stft(image(32), 8, 4, 8)[0],
    "svd": lambda: ops.svd(image(4, 3))[1],
    "switch": lambda: ops.switch(fixed(dtype="int32"), [lambda x: x, lambda x: -x], fixed(3)),
    "unfold": lambda: ops.unfold(image(3, 4, 4), 2),
    "unique": lambda: ops.unique(fixed(6)),
    "unravel_index": lambda: ops.unravel_index(fixed(4, dtype="int32"), (2, 3))[0],
    "vander": lambda: ops.vander(fixed(4), 3),
    "vdot": lambda: ops.vdot(fixed(4), fixed(4)),
    "vectorized_map": lambda: ops.vectorized_map(lambda x: x * 2.0, fixed(4, 3)),
    "view": lambda: ops.view(image(4), "int32"),
    "view_as_complex": lambda: ops.view_as_complex(image(4, 2)),
    "view_as_real": lambda: ops.view_as_real(image(4, dtype="complex64")),
    "vsplit": lambda: ops.vsplit(fixed(4, 3), 2)[0],
    "while_loop": lambda: ops.while_loop(
        lambda x: ops.sum(x) < 9.0, lambda x: (x + 1.0,), (image(4),)
    )[0],
    "image.affine_transform": lambda: ops.image.affine_transform(image(4, 4, 3), image(8)),
    "image.elastic_transform": lambda: ops.image.elastic_transform(image(4, 4, 3), seed=1),
    "image.gaussian_blur": lambda: ops.image.gaussian_blur(image(4, 4, 3)),
    "image.hsv_to_rgb": lambda: ops.image.hsv_to_rgb(ops.sigmoid(image(4, 4, 3))),
    "image.rgb_to_hsv": lambda: ops.image.rgb_to_hsv(ops.sigmoid(image(4, 4, 3))),
    "image.map_coordinates": lambda: ops.image.map_coordinates(fixed(4, 4), fixed(2, 3), order=1),
    "image.perspective_transform": lambda: ops.image.perspective_transform(
        image(4, 4, 3), np.zeros((2, 4, 2), "float32"), np.ones((2, 4, 2), "float32")
    ),
    "image.scale_and_translate": lambda: ops.image.scale_and_translate(
        image(4, 4, 3), (2, 4, 4, 3), np.ones(2, "float32"), np.zeros(2, "float32"), (1, 2),
        "linear",
    ),
    "image.sobel_edges": lambda: ops.image.sobel_edges(image(4, 4, 3)),
    "image.ssim": lambda: ops.image.ssim(image(16, 16, 3), image(16, 16, 3), 1.0),
    "image.extract_patches_3d": lambda: ops.image.extract_patches_3d(image(4, 4, 4, 2), (2, 2, 2)),
}  # fmt: skip


def inputs_for(row):
    """Return the symbolic tensors that a row reads."""
    tries = [keras.Input(shape) for shape in SHAPES]
    words = keras.Input((5,), dtype="int32")
    words.is_ids = True
    x = next(x for x in (*tries, words, keras.Input((5, 5, 3), dtype="uint8")) if row.takes(x))
    if row.pairs is None:
        return [x]
    other = keras.Input(x.shape[1:])
    assert row.pairs(x, other)
    return [x, other]


def test_every_function_is_in_one_place():
    drawn = {name.split()[0].removeprefix("ops.") for name in ROWS}
    public = {name for name in dir(ops) if not name.startswith("_")}
    public |= {f"image.{name}" for name in dir(ops.image) if not name.startswith("_")}
    for place in (ops.nn, ops.linalg, ops.numpy):
        own = {name for name in dir(place) if not name.startswith("_")}
        assert {n for n in own if getattr(ops, n, None) is not getattr(place, n)} == set()
    assert public <= drawn | set(RARE) | NO_TENSORS
    assert not drawn & set(RARE)
    assert set(ROWS) >= REFUSED


def refusal(inputs, made):
    """Return why a model is refused, None if it is converted, which compares both."""
    try:
        eq.from_keras3(keras.Model(inputs, made))
    except SimMismatchError:
        raise
    except UnsupportedModelError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_each_is_converted_or_refused_by_name():
    for name, row in ROWS.items():
        given = inputs_for(row)
        why = refusal(given, row.make(row.draw(Random(0), given[0]), "row")(*given))
        assert (why is not None) == (name in REFUSED), (name, why)
        assert why is None or why.startswith("keras_edgeq does not know")


@pytest.mark.slow
def test_rare_ones_are_converted_or_refused_by_name():
    refused = set()
    for name, call in RARE.items():
        GIVEN.clear()
        made = call()
        why = refusal(list(GIVEN), made)
        assert why is None or why.startswith(("keras_edgeq does not know", "Keras itself")), why
        refused |= {name} if why else set()
    assert len(refused) < len(RARE) / 2
