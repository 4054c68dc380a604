"""Parameters of which a few stand for all in the short run of the suite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def short(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Return the parameters of a test, with all but those in `kept` marked as slow."""
    return [pytest.param(v, marks=() if v in kept else pytest.mark.slow) for v in values]


def without_long(values: Iterable[Any], *long: Any) -> list[Any]:
    """Return the parameters of a test, with those in `long` marked as slow: they take longest."""
    return [pytest.param(v, marks=pytest.mark.slow if v in long else ()) for v in values]
