"""The `keras-edgeq` command: parse, run one command, turn errors into one line.

It stands beside the package because importing the package imports TensorFlow: like this, help comes
at once, and TensorFlow's log level is set in time. The commands are in `keras_edgeq.cli`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

MODEL_HELP = "a .keras file, an .h5 file or a SavedModel folder that tf_keras wrote"
LAMBDA_HELP = "load a file with Lambda layers, whose Python code runs; only if you trust the file"
PRECISION_HELP = "layers by name in another precision: 'conv_pw_*=W4A8'; may be repeated"
PROFILE_HELP = "name of a target profile or path of its .json file (default: %(default)s)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 where a check failed, 2 after an error."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from absl import logging as absl_logging

    from keras_edgeq.errors import EdgeqError

    # What TensorFlow's Python side warns of here (gradients, optimizers) is not the user's doing.
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        return importlib.import_module(f"keras_edgeq.cli.{args.command}").run(args)
    except EdgeqError as error:
        print("keras-edgeq:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-edgeq",
        description="Quantize tf_keras models for edge hardware, and check what was exported.",
        epilog="keras-edgeq COMMAND --help lists the options of a command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, add_arguments) in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=summary, description=f"{summary}."))
    return parser


def _quantize(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add("--calibration", metavar="FILE", help=".npz or .npy of typical inputs")
    ends = "without --calibration: what inputs lie between; ranges come from the batch norms"
    add("--input-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=ends)
    add("--out", required=True, metavar="FOLDER", help="where to write; made if need be")
    add("--profile", default="litert_int8", help=PROFILE_HELP)
    _add_precision(command)
    formats = "of tflite,onnx,encodings,saved_model (default: all that the profile has)"
    add("--formats", type=lambda text: text.split(","), metavar="A,B", help=formats)
    verify = ".npz or .npy of inputs to verify on (default: the samples the sim keeps)"
    add("--verify", metavar="FILE", help=verify)
    add(
        "--batch-size", type=_at_least(1), default=32, help="for calibration (default: %(default)s)"
    )
    add("--steps", type=_at_least(1), help="calibrate on at most so many batches (default: all)")
    keep = "calibration samples stored in the sim (default: %(default)s)"
    add("--keep-samples", type=_at_least(0), default=4, metavar="N", help=keep)
    add("--integer-io", action="store_true", help="int8 inputs and outputs in the TFLite file")
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _add_precision(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--precision",
        type=_name_and_precision,
        action="append",
        default=[],
        metavar="NAME=PRECISION",
        help=PRECISION_HELP,
    )


def _name_and_precision(text: str) -> tuple[str, str]:
    glob, equals, precision = text.rpartition("=")
    if not equals or not glob or not precision:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PRECISION, such as 'conv*=W4A8'")
    return glob, precision


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    number.__name__ = f"number of at least {least}"
    return number


def _demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="FOLDER", help="keep the files (default: write none)")


def _profiles(command: argparse.ArgumentParser) -> None:
    command.add_argument("--show", metavar="NAME", help="print the JSON of one profile")


def _inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--profile", default="litert_int8", help=PROFILE_HELP)
    _add_precision(command)
    command.add_argument("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _verify(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("sim", metavar="SIM", help="the sim, as quantize or save_sim wrote it")
    artifact = "a .tflite or .onnx file or a SavedModel folder"
    add("artifacts", metavar="ARTIFACT", nargs="+", help=artifact)
    data = ".npz or .npy of inputs (default: the samples in the sim)"
    add("--data", metavar="FILE", help=data)
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


COMMANDS = {
    "quantize": ("quantize a saved model with calibration data and export it", _quantize),
    "demo": ("train a small model on digits, quantize, export and verify it", _demo),
    "profiles": ("list the target profiles, or show one", _profiles),
    "inspect": ("show which layers of a saved model a target computes in integers", _inspect),
    "verify": (
        "run exported files and compare them with the sim; status 1 if one differs",
        _verify,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
