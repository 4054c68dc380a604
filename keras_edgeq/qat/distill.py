"""What a sim learns from its teacher: outputs and intermediate tensors, compared in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import TrainingError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import FakeQuant
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.ops import op_of
from keras_edgeq.ops.plain import SOFTMAX
from keras_edgeq.prepare import prepared_form
from keras_edgeq.prepare.functional import as_functional
from keras_edgeq.sim import QuantSim
from keras_edgeq.sim.reference import float_form
from keras_edgeq.sim.strip import stripped

OUTPUT_LOSSES = ("auto", "kl", "mse", "none")


@dataclass(frozen=True)
class Distillation:
    """How the teacher counts in `train`.

    Args:
        outputs: `"kl"` is the divergence of softened class probabilities, taken in front of the
            softmax if the output is one. `"mse"` is for regression and any other output. `"none"`
            leaves outputs out. `"auto"` takes `"kl"` for an output that is a softmax or has a
            categorical cross-entropy as loss, and `"mse"` for all others.
        temperature: of `"kl"`; the term is multiplied by its square, so that its gradients keep
            their size.
        weight: of the term of the outputs. The loss on labels has weight 1.
        features: names of tensors that are to come near the teacher's, as `describe` prints them
            for the model and for the teacher; a dict sim name -> teacher name where they differ.
        feature_weight: of the term of each feature, the squared error of a sample divided by the
            teacher's squared norm.

    Example:
        >>> near = eq.qat.Distillation(outputs="mse", features=["relu"])
        >>> result = eq.qat.train(
        ...     sim, x, epochs=1, teacher="float", distillation=near, progress=False
        ... )

    Reference:
        Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2; Romero et al. 2015, FitNets,
        arXiv:1412.6550.
    """

    outputs: str = "auto"
    temperature: float = 2.0
    weight: float = 1.0
    features: Iterable[str] | Mapping[str, str] = ()
    feature_weight: float = 1.0

    def __post_init__(self):
        if self.outputs not in OUTPUT_LOSSES:
            raise ValueError(f"outputs is {self.outputs!r}; it must be one of {OUTPUT_LOSSES}.")
        if self.temperature <= 0.0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0.")

    @property
    def pairs(self) -> dict[str, str]:
        """Names of the features: sim -> teacher."""
        given = self.features
        if isinstance(given, str):
            given = (given,)
        return dict(given) if isinstance(given, Mapping) else {name: name for name in given}


@dataclass(frozen=True, eq=False)
class Teaching:
    """The sim and its teacher as models that return all that is compared.

    Args:
        student: a model of the sim's own layers; returns outputs, what is compared of them, and
            features.
        teacher: returns the last two; None if there is none.
        losses: `"kl"`, `"mse"` or `"none"` per output; empty without a teacher.
        names: of the features.
    """

    student: tf_keras.Model
    teacher: tf_keras.Model | None
    losses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def made(self, inputs: Any, training: bool) -> tuple[list, list, list]:
        """Return outputs, compared outputs and features of the sim."""
        flat = tf.nest.flatten(self.student(inputs, training=training))
        count = len(flat) - len(self.losses) - len(self.names)
        compared = count + len(self.losses)
        return flat[:count], flat[count:compared], flat[compared:]

    def targets(self, inputs: Any) -> tuple[list, list]:
        """Return compared outputs and features of the teacher for a batch as the sim takes it."""
        if self.teacher is None:
            return [], []
        flat = keras_compat.flat_inputs(self.student, inputs)
        made = tf.nest.flatten(self.teacher(flat, training=False))
        made = [tf.stop_gradient(tensor) for tensor in made]
        return made[: len(self.losses)], made[len(self.losses) :]


def float_teacher(sim: QuantSim) -> tf_keras.Model:
    """Return the float model that a sim stands for, as it was before any technique rounded it."""
    return stripped(float_form(sim))


def teaching(
    sim: QuantSim,
    teacher: tf_keras.Model | None,
    distillation: Distillation,
    categorical: Iterable[bool],
) -> Teaching:
    """Return the models to compare.

    Args:
        sim: the student.
        teacher: a float model of the same inputs and outputs, or None.
        distillation: what to compare.
        categorical: per output, whether its loss on labels is a categorical cross-entropy.

    Raises:
        TrainingError: the teacher has other inputs or outputs, or a feature is not known.
        UnsupportedModelError: the teacher is no model that `as_functional` takes.
    """
    outputs, structure = list(sim.outputs), keras_compat.structured_inputs(sim)
    if teacher is None:
        return Teaching(tf_keras.Model(structure, outputs), None)
    # Kept or folded as in the sim, so that equal names are equal tensors.
    kept, record = bool(sim.batch_norms()), sim.record
    ready = prepared_form(as_functional(teacher), kept, record.profile, record.precision).model
    _check_alike(sim, ready)
    losses, ours, theirs = [], [], []
    for own, other, named in zip(outputs, ready.outputs, categorical, strict=True):
        logits = (_logits(sim, own), _logits(ready, other))
        both = None not in logits
        kind = distillation.outputs
        if kind == "auto":
            kind = "kl" if both or named else "mse"
        if kind == "kl" and own.shape[-1] == 1:
            raise TrainingError("A divergence of one class is 0; give outputs='mse'.")
        pair = logits if kind == "kl" and both else (own, other)
        losses.append(kind)
        ours.append(pair[0])
        theirs.append(pair[1])
    pairs = distillation.pairs
    seen = [_find(_tensors(sim), name, "sim") for name in pairs]
    aims = [_find(_tensors(ready), name, "teacher") for name in pairs.values()]
    for (name, other), own, aim in zip(pairs.items(), seen, aims, strict=True):
        if not own.shape.is_compatible_with(aim.shape):
            raise TrainingError(
                f"Feature {name!r} has shape {tuple(own.shape)}, the teacher's {other!r} has "
                f"{tuple(aim.shape)}; features are compared element by element."
            )
    student = tf_keras.Model(structure, [*outputs, *ours, *seen])
    taught = tf_keras.Model(ready.inputs, [*theirs, *aims])
    return Teaching(student, taught, tuple(losses), tuple(pairs))


def _check_alike(sim: QuantSim, teacher: tf_keras.Model) -> None:
    for what in ("inputs", "outputs"):
        own, other = (getattr(model, what) for model in (sim, teacher))
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (own, other)]
        alike = len(own) == len(other) and all(
            a.shape.is_compatible_with(b.shape) for a, b in zip(own, other, strict=True)
        )
        if not alike:
            raise TrainingError(
                f"The teacher's {what} have shapes {shapes[1]}, the sim's {shapes[0]}; a teacher "
                "has the same inputs and outputs in the same order."
            )


def _logits(model: tf_keras.Model, output: Any) -> Any | None:
    """Return what the softmax of an output is made of, None if it is not a softmax."""
    graph = LayerGraph.of(model)
    node = graph.producer(graph.name_of(output))
    if isinstance(node.layer, FakeQuant):
        node = graph.producer(node.inputs[0])
    if op_of(node.layer) is not SOFTMAX:
        return None
    return node.call.reads[0]


def _tensors(model: tf_keras.Model) -> dict[str, Any]:
    """Return the tensors of a model by printed name; of a quantized one what is rounded."""
    found, rounded = {}, {}
    for node in LayerGraph.of(model).nodes:
        symbols = tf.nest.flatten(node.call.node.outputs)
        if isinstance(node.layer, FakeQuant):
            rounded[node.call.node.call_kwargs["tensor"]] = symbols[0]
        else:
            found.update({str(ref): t for ref, t in zip(node.outputs, symbols, strict=True)})
    return {**found, **rounded}


def _find(tensors: dict[str, Any], name: str, where: str) -> Any:
    if name in tensors:
        return tensors[name]
    known = [other for other in tensors if ":" not in other]
    raise TrainingError(
        f"The {where} has no tensor {name!r}; it has {known}. Give features= a dict sim name -> "
        "teacher name where the names differ." + did_you_mean(name, known)
    )
