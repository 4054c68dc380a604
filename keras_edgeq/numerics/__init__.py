"""Arithmetic of quantization: tensors in, tensors out. Import from the submodules."""
