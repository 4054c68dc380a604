"""Small models of attention and of recurrent cells."""

import tf_keras

from tests.models import train_like

L = tf_keras.layers


def attention():
    """Attention, and Dense layers with a GELU, which LiteRT has in 8 bits alone."""
    rows = tf_keras.Input((5, 8), name="rows")
    y = L.LayerNormalization(name="norm")(rows)
    x = L.Add(name="sum")([rows, L.MultiHeadAttention(2, 4, name="mha")(y, y)])
    y = L.Dense(12, activation="gelu", name="wide")(x)
    return train_like(tf_keras.Model(rows, L.Dense(3, name="head")(y)))


def recurrent(layer):
    """A recurrent layer and a Dense layer."""
    x = tf_keras.Input((4, 3), name="signal")
    return train_like(tf_keras.Model(x, L.Dense(3, name="head")(layer(x))))
