"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MODEL_HELP = "a .keras or .h5 file of tf_keras or Keras 3, or a SavedModel folder of tf_keras"
LAMBDA_HELP = "load a file with Lambda layers, whose Python code runs; only if you trust the file"
ARTIFACT_HELP = "a .tflite or .onnx file or a SavedModel folder"
INPUTS_HELP = ".npz or .npy of inputs, or a folder of images"
PRECISION_HELP = (
    "'W4A8' for all layers that can, or layers by name: 'conv_pw_*=W4A8'; may be repeated"
)
PROFILE_HELP = "name of a target profile or path of its .json file (default: %(default)s)"


def preprocess(command: argparse.ArgumentParser) -> None:
    """Add what folders of images are given to."""
    told = (
        "for a folder of images: what training did to a batch of them, float32 between 0 and 255, "
        "such as tf_keras.applications.mobilenet:preprocess_input"
    )
    command.add_argument("--preprocess", metavar="MODULE:FUNCTION", help=told)


def precision(command: argparse.ArgumentParser) -> None:
    """Add the precision of layers by name."""
    command.add_argument(
        "--precision",
        type=name_and_precision,
        action="append",
        default=[],
        metavar="[NAME=]PRECISION",
        help=PRECISION_HELP,
    )


def name_and_precision(text: str) -> tuple[str, str]:
    """Read `NAME=PRECISION`; one without a name is for all layers."""
    glob, equals, precision = text.rpartition("=")
    if not precision or (equals and not glob):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither NAME=PRECISION, such as 'conv*=W4A8', nor a precision"
        )
    return glob or "*", precision


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads a whole number that is not smaller."""

    def number(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    number.__name__ = f"number of at least {least}"
    return number


def scored(command: argparse.ArgumentParser) -> None:
    """Add what a model is judged by: a function, or a metric on labels."""
    score = "function of a model that returns a number, higher is better"
    command.add_argument("--score", metavar="MODULE:FUNCTION", help=score)
    metric = "instead of --score: a metric of tf_keras on the labels, such as accuracy"
    command.add_argument("--metric", metavar="NAME", help=metric)


def measured(command: argparse.ArgumentParser, metric_needed: bool) -> None:
    """Add what is measured on what."""
    add = command.add_argument
    data = ".npz of inputs, and of labels as 'y' for a metric"
    add("--data", metavar="FILE", required=True, help=data)
    metric = "name of a metric of tf_keras, such as accuracy"
    add("--metric", metavar="NAME", required=metric_needed, help=metric)
    add("--output", metavar="NAME", help="the output that is measured, where there are several")
    add("--batch-size", type=at_least(1), default=32, help="samples per run (default: 32)")
    add("--steps", type=at_least(1), help="read at most so many batches (default: all)")
    runtime(command)


def runtime(command: argparse.ArgumentParser) -> None:
    """Add what runs an artifact."""
    threads = "CPU threads of the runtime (default: %(default)s)"
    command.add_argument("--threads", type=at_least(1), default=1, metavar="N", help=threads)
    kernels = "what runs a .tflite file (default: %(default)s)"
    choices = ("xnnpack", "builtin")
    command.add_argument("--kernels", choices=choices, default="xnnpack", help=kernels)


def name_and_sizes(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `NAME=SIZES`; sizes without a name are of the only input."""
    name, _, sizes = text.rpartition("=")
    try:
        return name, tuple(int(size) for size in sizes.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither NAME=SIZES, such as 'ids=1,64', nor sizes"
        ) from None
