"""From the user's model to the form a sim is made of: float, exact, one operation per layer."""

from __future__ import annotations

import tf_keras

from keras_edgeq.prepare.activations import split_activations
from keras_edgeq.prepare.affine import constants_to_affine
from keras_edgeq.prepare.check import check_model
from keras_edgeq.prepare.flatten import flatten_nested
from keras_edgeq.prepare.float32 import to_float32
from keras_edgeq.prepare.fold_batch_norms import batch_norms_to_affine, fold_batch_norms
from keras_edgeq.prepare.global_pools import pools_to_means
from keras_edgeq.prepare.separable import split_separable

REWRITES = (
    flatten_nested,
    to_float32,
    split_separable,
    split_activations,
    constants_to_affine,
    fold_batch_norms,
    batch_norms_to_affine,
    pools_to_means,
)


def prepare(model: tf_keras.Model) -> tf_keras.Model:
    """Return an equal model that a quantizer can read.

    Nested models are flattened (inner layers are named by their path), separable convolutions and
    fused activations are split, constants become layers, batch norms are folded where that is
    exact and become 1x1 depthwise convolutions elsewhere, average pools over the whole image
    become means. The result computes in float32.

    Args:
        model: a built functional or Sequential model; it is not changed.

    Raises:
        UnsupportedModelError: a subclassed, unbuilt or Keras 3 model.
    """
    check_model(model)
    for rewrite in REWRITES:
        model = rewrite(model)
    return model


__all__ = ["fold_batch_norms", "prepare"]
