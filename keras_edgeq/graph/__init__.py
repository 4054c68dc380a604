"""A Keras model seen as a graph: read it, run it node by node, rebuild it."""
