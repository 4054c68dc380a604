"""The library that draws the plots, as text that goes into the page."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from keras_edgeq.errors import EdgeqError


def plotly_js() -> str:
    """Return the source of plotly.js, without comments that would end a script.

    Raises:
        EdgeqError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise EdgeqError(
            f"A diagnosis as .html needs {error.name}, which is not installed: "
            'pip install "keras_edgeq[report]". Saving as .json or .csv needs nothing.'
        ) from None
    return get_plotlyjs().replace("</script", "<\\/script")


@cache
def own(name: str) -> str:
    """Return a file of this folder: the page's script or style."""
    return files("keras_edgeq.diagnose.page").joinpath(name).read_text(encoding="utf-8")
