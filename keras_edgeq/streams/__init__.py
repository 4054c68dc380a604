"""Activations of a model read call by call, in memory or on disk; no prefix is computed twice."""
