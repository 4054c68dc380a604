"""Quantization-aware training beyond `fit`."""
