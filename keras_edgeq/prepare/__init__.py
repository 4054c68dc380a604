"""From the user's model to the form a sim is made of: float, exact, one operation per layer."""

from __future__ import annotations

from collections.abc import Mapping

import tf_keras

from keras_edgeq.prepare.activations import split_activations
from keras_edgeq.prepare.affine import rewrite_and_name
from keras_edgeq.prepare.augmentations import cast_in_front
from keras_edgeq.prepare.check import check_model
from keras_edgeq.prepare.constant_ops import constants_to_layers
from keras_edgeq.prepare.flatten import flatten_nested
from keras_edgeq.prepare.float32 import mixed_policies, to_float32
from keras_edgeq.prepare.fold_batch_norms import (
    batch_norms_behind,
    batch_norms_to_affine,
    fold_and_name,
    fold_batch_norms,
)
from keras_edgeq.prepare.global_pools import pools_to_means
from keras_edgeq.prepare.known_statistics import known_statistics
from keras_edgeq.prepare.masks import masks_to_tensors
from keras_edgeq.prepare.positive_gammas import with_positive_gammas
from keras_edgeq.prepare.prepared import Prepared
from keras_edgeq.prepare.separable import split_separable
from keras_edgeq.prepare.slices import write_out_ellipses

SPLITS = (
    cast_in_front,
    write_out_ellipses,
    masks_to_tensors,
    to_float32,
    split_separable,
    split_activations,
)


def prepare(model: tf_keras.Model) -> tf_keras.Model:
    """Return an equal model that a quantizer can read.

    Nested models are flattened (inner layers are named by their path), masks become arguments,
    separable convolutions and fused activations are split, constants become layers, batch norms
    are folded where that is exact and become 1x1 depthwise convolutions elsewhere, average pools
    over the whole image become means. The result computes in float32.

    Args:
        model: a built functional or Sequential model; it is not changed.

    Raises:
        UnsupportedModelError: a subclassed, unbuilt or Keras 3 model.
    """
    return prepared_form(model).model


def prepared_form(model: tf_keras.Model, keep_batch_norms: bool = False) -> Prepared:
    """Return what `prepare` does, with what the model's layers know of its activations.

    With `keep_batch_norms`, those behind a weighted layer stay, ready to be trained.
    """
    check_model(model)
    names, policies = tuple(model.output_names), mixed_policies(model)
    model, held = constants_to_layers(flatten_nested(model))
    for rewrite in SPLITS:
        model = rewrite(model)
    model, later = constants_to_layers(model)  # of half precision before
    with_constants, constants = rewrite_and_name(model)
    prepared, folded = fold_and_name(with_constants)
    known = known_statistics(model, folded, constants | held | later)
    kept: Mapping[str, str] = {}
    if keep_batch_norms:
        prepared = fold_and_name(with_constants, behind=False)[0]
        kept = batch_norms_behind(prepared)
    prepared = pools_to_means(batch_norms_to_affine(prepared, kept))
    prepared = with_positive_gammas(prepared, kept) if kept else prepared
    return Prepared(prepared, names, known, policies)


__all__ = ["Prepared", "fold_batch_norms", "prepare", "prepared_form"]
