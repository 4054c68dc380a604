"""Round the weights of every candidate by GPTQ, in one walk over the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.measure.candidate_grids import CandidateForm, CandidateGrids, parameters
from keras_edgeq.ptq.adaround.unit_files import UnitFiles
from keras_edgeq.ptq.gptq import round_layer
from keras_edgeq.ptq.layer_visit import LayerVisit, walk_layers
from keras_edgeq.ptq.session import PtqSession
from keras_edgeq.spec.encoding import Encoding

PREFIX = "weights-"


def round_forms(
    grids: CandidateGrids, session: PtqSession, folder: Path | None, fingerprint: str
) -> CandidateGrids:
    """Return grids whose integer forms hold weights rounded by `gptq`'s equations.

    Layer by layer, each candidate is fitted to what the float layer makes, behind layers that have
    the most precise integer weights. What an earlier layer of fewer bits does to a later one is
    left to `gptq` on the model that is chosen.

    Args:
        grids: weights rounded to the nearest.
        session: of `grids.base`, with the data.
        folder: finished layers are kept there and read from there; None keeps nothing.
        fingerprint: of all that the weights depend on.
    """
    files = UnitFiles(folder, fingerprint)
    forms = {name: dict(own) for name, own in grids.forms.items()}
    known = {name: files.read(_file(name)) for name in forms}
    if all(arrays is not None for arrays in known.values()):
        walk: Iterable[LayerVisit] = ()
    else:
        walk = walk_layers(session, "gptq")
    left = Counter(call.layer.name for call in calls(session.work))
    forms.update({n: _from_arrays(a, forms[n]) for n, a in known.items() if a is not None})
    for visit in walk:
        name = visit.layer.name
        left[name] -= 1
        if name not in forms:
            continue
        # The most precise one last, since that is what the layers behind it see.
        own = {c: f for c, f in forms[name].items() if f.encodings}
        ordered = sorted(own, key=lambda c: _bits(visit.layer, own[c]))
        if known[name] is not None:
            _assign(visit.layer, own[ordered[-1]])
            continue
        visit.measure()
        for candidate in ordered:
            forms[name][candidate] = _rounded(visit, grids.forms[name][candidate])
        if not left[name]:
            files.write(_file(name), _to_arrays(forms[name]))
    return replace(grids, forms=forms)


def _bits(layer: QuantizedLayer, form: CandidateForm) -> int:
    return form.encodings[layer.kernel_name].spec.bits


def _rounded(visit: LayerVisit, form: CandidateForm) -> CandidateForm:
    """Return a form with the weights, scales and bias that fit best."""
    layer = visit.layer
    _assign(layer, form)
    round_layer(visit)
    grid = layer.quantizers[layer.kernel_name].encoding
    assert grid is not None  # round_layer leaves one
    values = {name: getattr(layer.layer, name).numpy() for name in parameters(layer)}
    spec = form.encodings[layer.kernel_name].spec
    return CandidateForm({**form.encodings, layer.kernel_name: replace(grid, spec=spec)}, values)


def _assign(layer: QuantizedLayer, form: CandidateForm) -> None:
    for name, encoding in form.encodings.items():
        layer.quantizers[name].assign(encoding)
    for name, values in form.values.items():
        getattr(layer.layer, name).assign(values)


def _file(layer: str) -> str:
    return PREFIX + layer.replace("/", ".")


def _to_arrays(forms: dict[str, CandidateForm]) -> dict[str, np.ndarray]:
    made = {}
    for candidate, form in forms.items():
        for name, values in form.values.items():
            made[f"{candidate}|value|{name}"] = values
        for name, encoding in form.encodings.items():
            made[f"{candidate}|scale|{name}"] = encoding.scale
    return made


def _from_arrays(
    arrays: dict[str, np.ndarray], forms: dict[str, CandidateForm]
) -> dict[str, CandidateForm]:
    made = {}
    for candidate, form in forms.items():
        parts = {
            tuple(k.split("|")[1:]): v for k, v in arrays.items() if k.startswith(f"{candidate}|")
        }
        encodings: dict[str, Encoding] = {
            name: replace(encoding, scale=parts["scale", name])
            for name, encoding in form.encodings.items()
        }
        values = {name: v for (kind, name), v in parts.items() if kind == "value"}
        made[candidate] = CandidateForm(encodings, values)
    return made
