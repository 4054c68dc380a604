"""What a diagnosis says first: the sim in numbers, and its findings with what was tried."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from keras_edgeq.analysis.page import paragraph
from keras_edgeq.diagnose.file_facts import FLOAT_FILE, SIM_FILE
from keras_edgeq.diagnose.finding import Finding, Trial
from keras_edgeq.diagnose.page.cells import Cell, Html, db, link, number, percent, table

if TYPE_CHECKING:
    from keras_edgeq.diagnose.diagnosis import Diagnosis
    from keras_edgeq.evaluate.comparison import Candidate


def summary(found: Diagnosis) -> str:
    """Return the float model, the sim and its files in a table, and what the diagnosis cost."""
    head = (
        "", "output", "score", "SQNR, dB", "same answer, %", "weights, bytes", "file, bytes",
        "latency, ms", "",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        ("float", "", number(found.float_score), "", "", f"{found.float_bytes:,}", "", "", "")
    ]
    rows += [
        ("sim", one.output, *_once(i, number(found.score)), db(one.sqnr_db),
         number(one.agreement, ".4g"), *_once(i, f"{found.weight_bytes:,}"), "", "", "")
        for i, one in enumerate(found.outputs)
    ]  # fmt: skip
    by_name = {one.name: one for one in found.files}
    if FLOAT_FILE in by_name:
        one = by_name[FLOAT_FILE]
        rows.append((f"float file on {one.runtime}", "", "", "", "", "", *_cost(one)))
    for run in found.runs:
        file = by_name.get(SIM_FILE)
        cost = ("", "", "") if file is None or file.runtime != run.runtime else _cost(file)
        score = number(file.metric) if file is not None and any(cost) else ""
        said = ". ".join(filter(None, (run.failed or run.verdict, cost[2])))
        outputs = [
            (one.output, db(one.sqnr_db), number(one.agreement, ".4g")) for one in run.float_outputs
        ] or [("", "", "")]
        rows += [
            (f"{run.artifact} on {run.runtime}", output, *_once(i, score), *far, "",
             *(cost[:2] if i == 0 else ("", "")), said)
            for i, (output, *far) in enumerate(outputs)
        ]  # fmt: skip
    about = (
        f"{found.samples} samples judged, {found.macs:,} multiply-accumulates per sample; "
        f"{found.passes:.1f} forward passes of the float model, {found.seconds:.1f} s, and "
        f"{found.remedy_seconds:.1f} s for remedies."
    )
    parts = [table("Summary", head, rows, texts=(0, 1, 8)), paragraph(about, note=True)]
    if found.not_measured:
        names = ", ".join(found.not_measured)
        parts.append(paragraph(f"Not switched, to keep within the passes: {names}.", note=True))
    return "".join(parts)


def _cost(one: Candidate) -> tuple[str, str, str]:
    """Return bytes, latency, and what failed."""
    size = "" if one.size_bytes is None else f"{one.size_bytes:,}"
    ratio = "" if one.latency_ratio in (None, 1.0) else f" ({one.latency_ratio:.2f} of float)"
    return size, "" if one.latency is None else f"{one.latency.p50:.3g}{ratio}", one.failed


def _once(i: int, text: str) -> tuple[str]:
    return (text if i == 0 else "",)


def findings(found: Diagnosis) -> str:
    """Return the findings, the costliest first."""
    if not found.findings:
        return paragraph(
            "Nothing stands out: the noise is that of rounding, spread over all layers."
        )
    place = {one.layer: i for i, one in enumerate(found.graph)}
    return "".join(_finding(n, one, place) for n, one in enumerate(found.findings, start=1))


def _finding(n: int, one: Finding, place: dict[str, int]) -> str:
    name = one.tensor or one.layer
    where = escape(name)
    if one.layer in place:
        where = link(f"layer-{place[one.layer]}", name).text
    facts = []
    if not math.isnan(one.share):
        facts.append(f"{percent(one.share)} % of the noise at the outputs")
    if not math.isnan(one.possible_db):
        facts.append(f"{one.possible_db:+.1f} dB without it")
    kind = "fault" if one.is_fault else "rounding"
    parts = [
        f'<article id="finding-{n}" class="finding {kind}">'
        f"<h3>{n}. {where}: {escape(one.cause)}</h3>"
        f"<p>{escape(one.evidence)}</p>"
    ]
    if facts:
        parts.append(paragraph(", ".join(facts) + ".", note=True))
    if one.advice:
        parts.append(paragraph(one.advice))
    if one.trials:
        parts.append(_trials(n, one))
    elif one.remedies:
        parts.append(paragraph(f"To try: {', '.join(map(str, one.remedies))}.", note=True))
    if one.remedy is not None:
        parts.append(
            f'<div class="code"><pre tabindex="0"><code>{escape(one.remedy.code)}</code></pre>'
            '<button type="button" class="copy">Copy</button></div>'
        )
    return "".join([*parts, "</article>"])


def _trials(n: int, one: Finding) -> str:
    head = ("remedy", "SQNR, dB", "gain, dB", "score", "gain", "bytes", "time, s", "")
    rows = [_trial(trial, trial is one.best) for trial in one.trials]
    return table(f"Remedies of finding {n}", head, rows, texts=(0, 7))


def _trial(trial: Trial, best: bool) -> tuple[Cell, ...]:
    if trial.failed:
        return (str(trial.remedy), "", "", "", "", "", "", trial.failed)
    return (
        str(trial.remedy), db(trial.sqnr_db), number(trial.gain_db, "+.1f"), number(trial.score),
        number(trial.gain_score, "+.4g"), f"{trial.bytes:+,}" if trial.bytes else "0",
        f"{trial.seconds:.1f}", Html("<b>best</b>") if best else "",
    )  # fmt: skip
