"""The nearest of the names there are, for the messages of errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LEAST_LIKE = 0.6
MOST = 3
WILD = "*?[]"


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return `" Did you mean 'x'?"` with what is spelled most like `name`, or nothing.

    Args:
        name: what was given; the wildcards of a glob are left out of the comparison.
        known: what there is.

    Example:
        >>> did_you_mean("onx", ["tflite", "onnx"])
        " Did you mean 'onnx'?"
        >>> did_you_mean("W8A8", ["float"])
        ''
    """
    given = str(name).strip(WILD).lower()
    names = {text.lower(): text for text in map(str, known)}
    if not given or not names:
        return ""
    # One that is spelled alike is meant rather than one that only holds the text.
    found = difflib.get_close_matches(given, names, MOST, LEAST_LIKE)
    if not found and len(given) > 2:
        found = [text for text in names if given in text or (len(text) > 2 and text in given)]
    best = found[:1] if found and found[0] == given else found[:MOST]
    return f" Did you mean {' or '.join(repr(names[text]) for text in best)}?" if best else ""
