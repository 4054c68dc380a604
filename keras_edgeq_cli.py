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
from collections.abc import Sequence

MODEL_HELP = "a .keras file, an .h5 file or a SavedModel folder that tf_keras wrote"
LAMBDA_HELP = "load a file with Lambda layers, whose Python code runs; only if you trust the file"
PROFILE_HELP = "name of a target profile or path of its .json file (default: %(default)s)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 where a check failed, 2 after an error."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_edgeq.errors import EdgeqError

    # What TensorFlow's Python side warns of here (gradients, optimizers) is not the user's doing.
    for logger in ("absl", "tensorflow"):
        logging.getLogger(logger).setLevel(logging.ERROR)
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
    add("--calibration", required=True, metavar="FILE", help=".npz or .npy of typical inputs")
    add("--out", required=True, metavar="FOLDER", help="where to write; made if need be")
    add("--profile", default="litert_int8", help=PROFILE_HELP)
    add("--formats", type=lambda text: text.split(","), metavar="A,B",
        help="of tflite,onnx,encodings,saved_model (default: all that the profile has)")
    add("--verify", metavar="FILE",
        help=".npz or .npy of inputs to verify on (default: the samples the sim keeps)")
    add("--batch-size", type=int, default=32, help="for calibration (default: %(default)s)")
    add("--steps", type=int, help="calibrate on at most so many batches (default: all)")
    add("--keep-samples", type=int, default=4, metavar="N",
        help="calibration samples stored in the sim (default: %(default)s)")
    add("--integer-io", action="store_true", help="int8 inputs and outputs in the TFLite file")
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)  # fmt: skip


def _demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="FOLDER", help="keep the files (default: write none)")


def _profiles(command: argparse.ArgumentParser) -> None:
    command.add_argument("--show", metavar="NAME", help="print the JSON of one profile")


def _inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--profile", default="litert_int8", help=PROFILE_HELP)
    command.add_argument("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("sim", metavar="SIM", help="the sim, as quantize or save_sim wrote it")
    command.add_argument("artifacts", metavar="ARTIFACT", nargs="+",
                         help="a .tflite or .onnx file or a SavedModel folder")  # fmt: skip
    command.add_argument("--data", metavar="FILE",
                         help=".npz or .npy of inputs (default: the samples in the sim)")  # fmt: skip
    command.add_argument("--allow-lambda", action="store_true", help=LAMBDA_HELP)


COMMANDS = {
    "quantize": ("quantize a saved model with calibration data and export it", _quantize),
    "demo": ("train a small model on digits, quantize, export and verify it", _demo),
    "profiles": ("list the target profiles, or show one", _profiles),
    "inspect": ("show which layers of a saved model a target computes in integers", _inspect),
    "verify": ("run exported files and compare them with the sim; status 1 if one differs", _verify),
}

if __name__ == "__main__":
    sys.exit(main())
