"""`QuantSim`: a functional Keras model that remembers what it simulates."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.deep import deep_graphs
from keras_edgeq.graph.keras_file import FILE_SUFFIXES
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.keras3.training import as_tf_keras_training
from keras_edgeq.layers import FakeQuant, FreezableBatchNorm, QuantizedLayer
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.npz import check_arrays
from keras_edgeq.sim.stats import CalibrationStats
from keras_edgeq.sim.summary import summary
from keras_edgeq.spec.fidelity import Fidelity
from keras_edgeq.table import brief, counted, html

MAX_SAMPLE_BYTES = 1_000_000_000


@dataclass(frozen=True, eq=False)
class SimRecord:
    """What a sim was made from, replaced whole; saved inside every format Keras writes.

    Args:
        profile: the target.
        plan: where quantizers stand.
        output_names: names of the user's output layers, which losses and signatures go by.
        samples: a few calibration inputs, one array per model input, for verification.
        precision: glob over layer names -> precision that was asked for.
        rules: range rules that were asked for.
        floored: layer -> number of channels whose weight scale was raised so that the int32 bias
            does not saturate.
        frozen: printed names of the tensors whose grids no calibration changes.
        rounded: layer -> how a technique chose its integers, such as `"gptq"`; no entry where each
            weight is rounded to the nearest.
        policies: layer -> mixed policy that it had in the user's model.
        constants: layers that hold constants of the user's model; they are never trained.
        fidelity: the sim beside its float model when its grids were last derived; training since
            then is not in it. None if nothing was measured.
        warnings: what was said about the sim then.
        stats: statistics of the activations that the grids were derived from, None if they are
            not available; saved beside the sim.
        reference: float parameters, `"conv1/kernel"` -> array, from before a technique rounded
            them; None if none did. Saved beside the sim.
        parts: part that `save_sim` wrote beside the model -> SHA-256 of its file. Only in files: it
            tells a part of this sim from one of another. None if Keras alone saved the sim.
    """

    profile: TargetProfile
    plan: QuantPlan
    output_names: tuple[str, ...]
    samples: tuple[np.ndarray, ...] = ()
    floored: Mapping[str, int] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    rounded: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    constants: frozenset[str] = frozenset()
    fidelity: Fidelity | None = None
    warnings: tuple[str, ...] = ()
    parts: Mapping[str, str] | None = None
    stats: CalibrationStats | None = None
    reference: Mapping[str, np.ndarray] | None = None

    def __repr__(self) -> str:
        asked = ", ".join(f"{glob} {name}" for glob, name in self.precision.items())
        return brief(
            f"SimRecord for {self.profile.name}",
            repr(self.plan).strip("<>"),
            f"asked for {asked}" if asked else "",
            counted(len(self.samples[0]), "sample") if self.samples else "no samples",
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; samples are a compressed npz in base64."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, *self.samples)
        return {
            "profile": self.profile.to_json(),
            "plan": self.plan.to_json(),
            "output_names": list(self.output_names),
            "samples": base64.b64encode(buffer.getvalue()).decode() if self.samples else "",
            "floored": dict(self.floored),
            "precision": dict(self.precision),
            "rules": dict(self.rules),
            "frozen": sorted(self.frozen),
            "rounded": dict(self.rounded),
            "policies": dict(self.policies),
            "constants": sorted(self.constants),
            "fidelity": None if self.fidelity is None else self.fidelity.to_json(),
            "warnings": list(self.warnings),
            "parts": None if self.parts is None else dict(self.parts),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SimRecord:
        """Read `to_json` output."""
        samples: tuple[np.ndarray, ...] = ()
        if data["samples"]:
            packed = io.BytesIO(base64.b64decode(data["samples"]))
            check_arrays(packed, MAX_SAMPLE_BYTES)
            with np.load(packed) as arrays:
                samples = tuple(arrays[name] for name in arrays.files)
        profile = TargetProfile.from_json(data["profile"], "The sim's profile")
        plan, names = QuantPlan.from_json(data["plan"]), tuple(data["output_names"])
        asked = (data["precision"], data["rules"], frozenset(data.get("frozen", ())))
        later = (data.get("rounded", {}), data.get("policies", {}))
        constants, measured = frozenset(data.get("constants", ())), data.get("fidelity")
        fidelity = None if measured is None else Fidelity.from_json(measured)
        last = (constants, fidelity, tuple(data.get("warnings", ())), data.get("parts"))
        return cls(profile, plan, names, samples, data["floored"], *asked, *later, *last)


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class QuantSim(tf_keras.Model):
    """A functional model with quantizers inside: `fit`, `evaluate`, `save` as with any model.

    Made by `keras_edgeq.quantize`. Attribute `record` holds the profile, the plan, a few
    calibration samples and the rest of what a sim remembers; `attach` passes it to a sim made from
    this one. `stats` are the histograms of the calibration, None after a plain `load_model`
    (`keras_edgeq.load_sim` brings them back). `reference` holds the float parameters from before a
    technique rounded them, None if none did.

    Example:
        >>> sim
        <QuantSim 'net' for litert_int8: ...>
        >>> sorted(sim.quantizers()), sorted(sim.quantized_layers())
        (['head', 'image', 'relu'], ['conv', 'head'])
    """

    record: SimRecord

    @property
    def stats(self) -> CalibrationStats | None:
        """The histograms of the calibration."""
        return self.record.stats

    @stats.setter
    def stats(self, stats: CalibrationStats | None) -> None:
        self.keep(stats=stats)

    @property
    def reference(self) -> Mapping[str, np.ndarray] | None:
        """The float parameters from before a technique rounded them."""
        return self.record.reference

    @reference.setter
    def reference(self, reference: Mapping[str, np.ndarray] | None) -> None:
        self.keep(reference=reference)

    @property
    def dtype_policy(self):
        """The policy of the layers that train in half precision: `compile` scales their loss."""
        names = {layer.dtype_policy.name for layer in self.quantized_layers().values()}
        mixed = sorted(
            names - {"float32"}, reverse=True
        )  # float16, which needs it, before bfloat16
        return tf_keras.mixed_precision.Policy(mixed[0] if mixed else "float32")

    def quantizers(self) -> dict[str, FakeQuant]:
        """Return the activation quantizers by the name of the tensor that owns the grid."""
        return {layer.tensor: layer for layer in self.layers if isinstance(layer, FakeQuant)}

    def quantized_layers(self) -> dict[str, QuantizedLayer]:
        """Return the layers with quantized parameters by name."""
        return {layer.name: layer for layer in self.layers if isinstance(layer, QuantizedLayer)}

    def batch_norms(self) -> dict[str, FreezableBatchNorm]:
        """Return the batch norms that train, by name; folded ones are gone."""
        return {layer.name: layer for layer in self.layers if isinstance(layer, FreezableBatchNorm)}

    def range_variables(self) -> list[tf.Variable]:
        """Return the trainable variables that are ranges, as `keras_edgeq.learn_ranges` made."""
        parameters = [
            q for layer in self.quantized_layers().values() for q in layer.quantizers.values()
        ]
        quantizers = [*self.quantizers().values(), *parameters]
        return [v for q in quantizers if q.learned is not None for v in q.learned.variables]

    def __repr__(self) -> str:
        if getattr(self, "record", None) is None:  # Keras is still making it
            return f"<QuantSim {self.name!r}>"
        facts = summary(self)
        return brief(
            f"QuantSim {self.name!r} for {facts.pop('target')}",
            facts.pop("layers"),
            facts.pop("precision"),
            *(f"{name} {fact}" for name, fact in facts.items()),
        )

    def _repr_html_(self) -> str:
        rows = [(name, fact) for name, fact in summary(self).items()]
        return html(f"QuantSim {self.name!r}", [("", ""), *rows], "\n".join(self.record.warnings))

    def compile(self, *args, **kwargs):
        """Compile as any model; losses, metrics and optimizers may be of Keras 3."""
        super().compile(*as_tf_keras_training(args), **as_tf_keras_training(kwargs))

    def compile_from_config(self, config):
        """Compile as the saved sim was; Keras does it for its own `compile` only."""
        self.compile(**tf_keras.saving.deserialize_keras_object(config))
        if isinstance(self.optimizer, tf_keras.optimizers.Optimizer):
            self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose: Any = "auto",
        callbacks=None,
        *rest,
        **more,
    ):
        """Train as any model; callbacks are of `tf_keras`."""
        callbacks = as_tf_keras_training(callbacks)
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, *rest, **more)

    def save(self, filepath, overwrite=True, save_format=None, **kwargs):
        """Save the sim as any model; in a SavedModel without functions for the gradients.

        The layers have them, and TensorFlow could not trace them.
        """
        single = str(filepath).endswith(FILE_SUFFIXES)
        if save_format == "tf" or (save_format is None and not single):
            options = copy.copy(kwargs.get("options")) or tf.saved_model.SaveOptions()
            options.experimental_custom_gradients = False
            kwargs["options"] = options
        return super().save(filepath, overwrite, save_format, **kwargs)

    def attach(self, record: SimRecord) -> None:
        """Take a record, and the names of the user's outputs from it."""
        self.record = record
        self.output_names = list(record.output_names)

    def keep(self, **changes: Any) -> None:
        """Exchange fields of the record."""
        self.record = replace(self.record, **changes)

    def get_config(self):
        """Return the functional config and the record."""
        return {**super().get_config(), "edgeq": self.record.to_json()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Build the functional model and give it its record back."""
        config = dict(config)
        record = SimRecord.from_json(config.pop("edgeq"))
        with deep_graphs(sum(len(one["inbound_nodes"]) for one in config["layers"])):
            sim = super().from_config(config, custom_objects)
        sim.attach(record)
        return sim


def quantized_tensors(sim: tf_keras.Model) -> list[str]:
    """Return the printed names of the tensors that a sim quantizes, in graph order."""
    made = (c.node.call_kwargs["tensor"] for c in calls(sim) if isinstance(c.layer, FakeQuant))
    return list(dict.fromkeys(made))


# `.h5` files name a model by its bare class name, which the registered name does not cover.
tf_keras.saving.get_custom_objects()["QuantSim"] = QuantSim
