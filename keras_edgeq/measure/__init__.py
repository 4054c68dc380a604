"""Measures what choices of precisions lose, without a sim for each."""
