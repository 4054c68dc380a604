"""Find the tensor of a sim that an encodings file means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings.entry import ACTIVATION, SECTIONS, FileEntry, shown
from keras_edgeq.export.encodings.grids import Key
from keras_edgeq.nearest import did_you_mean

_OUTPUT = re.compile(r"(?s)(.+):([0-9]{1,9})")


def matched(
    entries: Iterable[FileEntry], known: Iterable[Key], names: Mapping[str, str] | None
) -> tuple[dict[Key, FileEntry], list[FileEntry]]:
    """Return the entries by the sim's tensors, and those that the sim does not have.

    Names are the sim's, or those of a Keras model before it was prepared: `conv/kernel:0`,
    `conv/BiasAdd:0`, `scores/Softmax:0`.

    Args:
        entries: of a file.
        known: the sim's tensors.
        names: name in the file -> name in the sim, for files with other names.

    Raises:
        EncodingsError: `names` leads nowhere, or a tensor is meant twice.
    """
    known, names = set(known), dict(names or {})
    printed = {name for _, name in known}
    lost = sorted(name for name in names.values() if name not in printed)
    if lost:
        raise EncodingsError(
            f"names leads to {lost[:20]}, which the sim does not have."
            + did_you_mean(lost[0], printed)
        )
    found: dict[Key, FileEntry] = {}
    unknown = []
    for entry in entries:
        own = [names[entry.name]] if entry.name in names else list(_candidates(entry))
        sections = SECTIONS if entry.section is None else (entry.section,)
        key = next((k for n in own for s in sections if (k := (s, n)) in known), None)
        if key is None:
            unknown.append(entry)
        elif key in found:
            raise EncodingsError(
                f"{shown(found[key].name)} and {shown(entry.name)} of the file are both "
                f"{key[1]!r} of the sim; take one out."
            )
        else:
            found[key] = entry
    return found, unknown


def _candidates(entry: FileEntry) -> Iterator[str]:
    """Yield what a name can mean, the closest first."""
    base, suffix = entry.name, ""
    yield base
    match = _OUTPUT.fullmatch(base)
    if match is not None:
        base, suffix = match[1], f":{int(match[2])}" if int(match[2]) else ""
        yield base + suffix
    layer, _, operation = base.rpartition("/")
    # Without sections nothing tells a parameter from what its layer puts out.
    if layer and entry.section == ACTIVATION:
        # A fused activation is a tensor of its own in a sim: `scores/softmax`.
        yield f"{layer}/{operation.lower()}{suffix}"
        yield layer + suffix


def check_names(where: str, unknown: Iterable[FileEntry], missing: Iterable[Key]) -> None:
    """Raise if only one side knows a tensor.

    Raises:
        EncodingsError: lists the tensors.
    """
    in_file = [_described(entry.section, entry.name) for entry in unknown]
    in_sim = [_described(section, name) for section, name in sorted(missing)]
    parts = [f"the sim does not have {_listed(in_file)}"] if in_file else []
    parts += [f"the file does not have {_listed(in_sim)}"] if in_sim else []
    if parts:
        raise EncodingsError(
            f"{where} does not fit the sim: {'; '.join(parts)}. names={{file's: sim's}} "
            "translates; strict=False ignores both and keeps what the sim has."
        )


def _described(section: str | None, name: str) -> str:
    return f"{'tensor' if section is None else SECTIONS[section]} {shown(name)}"


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    return ", ".join(found[:20]) + more
