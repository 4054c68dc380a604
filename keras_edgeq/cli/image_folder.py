"""Images in a folder as inputs of a model."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.cli.functions import function
from keras_edgeq.errors import CalibrationDataError

PREPROCESS = "--preprocess"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def inputs_at(path: str | None, args: Namespace, model: tf_keras.Model) -> Any:
    """Return inputs for a model: the path of a file as it is, a folder of images as batches.

    Args:
        path: of the command line; None stays None.
        args: the others of the command, `preprocess` and `batch_size` among them.
        model: that takes the inputs.
    """
    if path is None or not Path(path).is_dir():
        return path
    return ImageFolder(path, model, function(args.preprocess, PREPROCESS), args.batch_size)


class ImageFolder:
    """Batches of the images in a folder and the folders in it, in the order of their names.

    Each is decoded, resized to the model's input (bilinear, antialiased) and given to `preprocess`
    as float32 between 0 and 255, in batches.

    Args:
        folder: holds `.jpg`, `.jpeg`, `.png`, `.bmp` or `.gif` files; of the last the first frame.
        model: whose only input they become, `(height, width, 1 or 3)`.
        preprocess: what the model's training did to such a batch: `(batch) -> batch`.
        batch_size: images per batch.

    Raises:
        CalibrationDataError: the model takes no images, or the folder holds none.
    """

    def __init__(
        self,
        folder: str | Path,
        model: tf_keras.Model,
        preprocess: Callable[[NDArray[np.float32]], Any],
        batch_size: int,
    ):
        shape = tuple(model.inputs[0].shape)
        if len(model.inputs) != 1 or len(shape) != 4 or None in shape[1:] or shape[3] not in (1, 3):
            shapes = ", ".join(str(tuple(one.shape[1:])) for one in model.inputs)
            raise CalibrationDataError(
                f"A folder of images needs a model with one input of (height, width, 1 or 3); "
                f"{model.name!r} has {shapes}. Give an .npz file of its inputs instead."
            )
        self._files = sorted(
            file for file in Path(folder).rglob("*") if file.suffix.lower() in SUFFIXES
        )
        if not self._files:
            raise CalibrationDataError(
                f"{folder} holds no images ({', '.join(SUFFIXES)}), nor do the folders in it."
            )
        self._size, self._channels = shape[1:3], int(shape[3])
        self._preprocess, self._batch_size = preprocess, int(shape[0] or batch_size)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._files) // self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, len(self._files), self._batch_size):
            files = self._files[begin : begin + self._batch_size]
            images = np.stack([self._image(file) for file in files])
            try:
                yield self._preprocess(images)
            except Exception as error:
                raise CalibrationDataError(
                    f"{PREPROCESS} failed on images {images.shape} from {files[0]}: {error!r}."
                ) from error

    def _image(self, file: Path) -> NDArray[np.float32]:
        try:
            content = tf.io.read_file(str(file))
            image = tf.io.decode_image(content, self._channels, expand_animations=False)
        except tf.errors.OpError as error:
            raise CalibrationDataError(f"Cannot read the image {file}: {error.message}") from None
        return np.asarray(tf.image.resize(image, self._size, antialias=True), np.float32)
