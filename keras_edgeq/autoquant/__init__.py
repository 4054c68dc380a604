"""AutoQuant: the techniques that a model needs to lose no more than it may."""
