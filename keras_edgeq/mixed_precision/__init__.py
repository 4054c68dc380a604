"""The right bits for each layer."""

from keras_edgeq.mixed_precision.keep_worst import keep_worst
from keras_edgeq.mixed_precision.search import search_mixed_precision
from keras_edgeq.mixed_precision.search_result import Point, SearchResult

__all__ = ["Point", "SearchResult", "keep_worst", "search_mixed_precision"]
