"""Post-training accuracy: what can be done to a model, or a sim, without training it again."""
