"""From the user's model to the form a sim is made of: float, exact, one operation per layer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import tf_keras

from keras_edgeq.prepare.activations import split_layers
from keras_edgeq.prepare.augmentations import cast_in_front
from keras_edgeq.prepare.check import check_model
from keras_edgeq.prepare.constant_ops import constants_to_layers
from keras_edgeq.prepare.factors import with_factors_folded
from keras_edgeq.prepare.flatten import flatten_nested, open_attention
from keras_edgeq.prepare.float32 import mixed_policies, to_float32
from keras_edgeq.prepare.fold_batch_norms import fold_batch_norms
from keras_edgeq.prepare.known_sizes import with_known_sizes
from keras_edgeq.prepare.known_statistics import known_statistics
from keras_edgeq.prepare.low_pads import with_low_pads_reflected
from keras_edgeq.prepare.mask_arithmetic import with_masks_selected
from keras_edgeq.prepare.masks import masks_to_tensors
from keras_edgeq.prepare.norm_layers import norms_to_layers
from keras_edgeq.prepare.normalization import normalizations_in_parts
from keras_edgeq.prepare.operations import write_with_known_operations
from keras_edgeq.prepare.positive_gammas import with_positive_gammas
from keras_edgeq.prepare.prepared import Prepared
from keras_edgeq.prepare.recurrent import unrolled
from keras_edgeq.prepare.repeated_constants import with_repeated_constants
from keras_edgeq.prepare.simplify import simplified
from keras_edgeq.prepare.slices import write_out_ellipses
from keras_edgeq.profiles.target_profile import TargetProfile

NOTHING_ASKED: Mapping[str, str] = MappingProxyType({})
PLAIN = (
    cast_in_front,
    masks_to_tensors,
    open_attention,
    with_known_sizes,
    write_out_ellipses,
    to_float32,
    with_masks_selected,
    with_repeated_constants,
    with_low_pads_reflected,
)


def prepare(
    model: tf_keras.Model,
    profile: TargetProfile | None = None,
    asked: Mapping[str, str] = NOTHING_ASKED,
) -> tf_keras.Model:
    """Return an equal model that a quantizer can read.

    Nested models are flattened (inner layers are named by their path), masks become arguments,
    attention becomes projections and products of matrices, separable convolutions and fused
    activations are split, functions without a kernel are written with operations that have one,
    recurrent layers are written out step by step, constants become layers, batch norms are folded
    where that is exact and become 1x1 depthwise convolutions elsewhere, average pools over the
    whole image become means. The result computes in float32.

    Args:
        model: a built functional or Sequential model; it is not changed.
        profile: the target, where it is known: normalization that is to compute in 16 bits, and has
            no kernel of its own there, is written with operations that have one.
        asked: glob over layer names -> precision that is asked for.

    Raises:
        UnsupportedModelError: a subclassed, unbuilt or Keras 3 model.
    """
    return prepared_form(model, profile=profile, asked=asked).model


def prepared_form(
    model: tf_keras.Model,
    keep_batch_norms: bool = False,
    profile: TargetProfile | None = None,
    asked: Mapping[str, str] = NOTHING_ASKED,
) -> Prepared:
    """Return what `prepare` does, with what the model's layers know of its activations.

    With `keep_batch_norms`, those behind a weighted layer stay, ready to be trained.
    """
    check_model(model)
    names, policies = tuple(model.output_names), mixed_policies(model)
    model, held = constants_to_layers(flatten_nested(model))
    for rewrite in PLAIN:
        model = rewrite(model)
    model, later = constants_to_layers(model)  # of half precision before
    model = with_factors_folded(norms_to_layers(write_with_known_operations(model)))
    if profile is not None:
        model = normalizations_in_parts(model, profile, asked)
    model = unrolled(split_layers(model))
    result = simplified(model)
    known = known_statistics(model, result.made, result.constants | held | later)
    if keep_batch_norms:
        result = simplified(model, keep_batch_norms=True)
    prepared = with_positive_gammas(result.model, result.kept) if result.kept else result.model
    return Prepared(prepared, names, known, policies)


__all__ = ["Prepared", "fold_batch_norms", "prepare", "prepared_form"]
