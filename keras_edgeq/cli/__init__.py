"""What the commands of `keras-edgeq` do; `keras_edgeq_cli` parses and calls them."""
