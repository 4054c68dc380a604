"""`QuantPlan`: which tensors are quantized on which grids, and by which kernels; pure data."""

from keras_edgeq.plan.quant_plan import QuantPlan

__all__ = ["QuantPlan"]
