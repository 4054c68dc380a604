"""`Prepared`: a float model as a quantizer reads it, with what is known of it; once per call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import tf_keras

from keras_edgeq.prepare.fold_batch_norms import fold_batch_norms
from keras_edgeq.prepare.known_statistics import KnownStatistics


@dataclass(frozen=True, eq=False)
class Prepared:
    """What `prepared_form` made of a model.

    Args:
        model: equal to the user's; one operation per layer, computing in float32.
        output_names: names of the user's output layers, which losses and signatures go by.
        known: what batch norms and other layers of the user's model tell of its activations.
        policies: layer -> mixed policy that it had in the user's model.
    """

    model: tf_keras.Model
    output_names: tuple[str, ...]
    known: KnownStatistics = field(default_factory=KnownStatistics)
    policies: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def folded(self) -> tf_keras.Model:
        """The model with the batch norms folded that train in it, which is what a plan is for."""
        return fold_batch_norms(self.model)
