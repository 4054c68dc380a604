"""What can be typed after `keras-edgeq`."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

import keras_edgeq
from keras_edgeq.cli.options import (
    ARTIFACT_HELP,
    INPUTS_HELP,
    LAMBDA_HELP,
    MODEL_HELP,
    PROFILE_HELP,
    at_least,
    measured,
    name_and_sizes,
    precision,
    preprocess,
    runtime,
    scored,
)
from keras_edgeq.nearest import did_you_mean

STATUSES = """exit status:
  0    done
  1    an exported file does something else than the sim, or auto missed its target
  2    wrong use or input: one line on stderr says what, and what to do
  3    a fault of this program, with a traceback to report
  130  stopped by Ctrl-C

keras-edgeq COMMAND --help lists the options of a command."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the name that may have been meant."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        choice = re.match(
            r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message
        )
        if choice:
            message = f"no command {choice[1]!r}; there are {', '.join(COMMANDS)}."
            message += did_you_mean(choice[1], COMMANDS)
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            message += "." + did_you_mean(unknown[1].partition("=")[0], self._option_names())
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help)\n")

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """Parse; what a command does not know is its own error, not that of the program."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            self.commands[found.command].error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    commands: dict[str, Parser] = {}  # noqa: RUF012  # set once, by `parser`

    def _option_names(self) -> list[str]:
        return [text for action in self._actions for text in action.option_strings]


def parser() -> Parser:
    """Return the parser of the whole command line."""
    top = Parser(
        prog="keras-edgeq",
        description="Quantize tf_keras models for edge hardware, and check what was exported.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _version(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    top.commands = {}
    for name, (summary, add_arguments) in COMMANDS.items():
        made = commands.add_parser(name, help=summary, description=f"{summary}.")
        add_arguments(made)
        _common(made)
        top.commands[name] = made
    return top


def _version(command: argparse.ArgumentParser) -> None:
    shown = f"keras-edgeq {keras_edgeq.__version__}"
    command.add_argument("--version", action="version", version=shown, help="print the version")


def _common(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--json", action="store_true", help="print the result as JSON, and nothing else, on stdout")
    add("--quiet", action="store_true", help="no progress and no report, only what went wrong")
    add("--verbose", action="store_true", help="show the log lines of TensorFlow and the runtimes")
    _version(command)


def _quantize(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add("--calibration", metavar="FILE", help=f"{INPUTS_HELP}, typical of use")
    preprocess(command)
    ends = "without --calibration: what inputs lie between; ranges come from the batch norms"
    add("--input-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=ends)
    add("--out", required=True, metavar="FOLDER", help="where to write; made if need be")
    add("--profile", default="litert_int8", help=PROFILE_HELP)
    precision(command)
    formats = "of tflite,onnx,encodings,saved_model (default: all that the profile has)"
    add("--formats", type=lambda text: text.split(","), metavar="A,B", help=formats)
    verify = f"{INPUTS_HELP}, to verify on (default: the samples the sim keeps)"
    add("--verify", metavar="FILE", help=verify)
    add("--batch-size", type=at_least(1), default=32, help="for calibration (default: %(default)s)")
    add("--steps", type=at_least(1), help="calibrate on at most so many batches (default: all)")
    keep = "calibration samples stored in the sim (default: %(default)s)"
    add("--keep-samples", type=at_least(0), default=4, metavar="N", help=keep)
    add("--integer-io", action="store_true", help="int8 inputs and outputs in the TFLite file")
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="FOLDER", help="keep the files (default: write none)")


def _profiles(command: argparse.ArgumentParser) -> None:
    command.add_argument("--show", metavar="NAME", help="print the JSON of one profile")


def _inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--profile", default="litert_int8", help=PROFILE_HELP)
    precision(command)
    command.add_argument("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _grids(command: argparse.ArgumentParser) -> None:
    command.add_argument("sim", metavar="SIM", help="the sim, as quantize or save_sim wrote it")
    command.add_argument("--csv", metavar="FILE", help="write the table there, a row per tensor")
    command.add_argument("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _verify(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("sim", metavar="SIM", help="the sim, as quantize or save_sim wrote it")
    add("artifacts", metavar="ARTIFACT", nargs="+", help=ARTIFACT_HELP)
    data = ".npz or .npy of inputs (default: the samples in the sim)"
    add("--data", metavar="FILE", help=data)
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _benchmark(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("artifact", metavar="ARTIFACT", help=ARTIFACT_HELP)
    data = ".npz or .npy of inputs, of which the first batch runs (default: random inputs)"
    add("--data", metavar="FILE", help=data)
    runtime(command)
    counts = {"--warmup": (0, 10, "runs in front that do not count"), "--runs": (1, 100, "runs")}
    for name, (least, default, text) in counts.items():
        help_text = f"{text} (default: %(default)s)"
        add(name, type=at_least(least), default=default, metavar="N", help=help_text)
    add("--batch-size", type=at_least(1), default=1, help="samples per run (default: %(default)s)")
    sizes = "of an input, where the file leaves more than the batch free: ids=1,64; may be repeated"
    add(
        "--sizes",
        type=name_and_sizes,
        action="append",
        default=[],
        metavar="[NAME=]SIZES",
        help=sizes,
    )
    add("--no-operations", action="store_true", help="do not profile the operations")
    add("--save", metavar="FILE", help="write the values as .json, or the operations as .csv")


def _diagnose(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("sim", metavar="SIM", help="the sim, as quantize or save_sim wrote it")
    data = f"{INPUTS_HELP}; a file with labels as 'y' for --metric"
    add("--data", metavar="FILE", required=True, help=data)
    preprocess(command)
    scored(command)
    remedies = "findings for which remedies are tried (default: %(default)s)"
    add("--remedies", type=at_least(0), default=5, metavar="N", help=remedies)
    add("--budget", type=float, metavar="SECONDS", help="begin no remedy past them")
    samples = "samples that errors are measured on (default: %(default)s)"
    add("--samples", type=at_least(1), default=32, metavar="N", help=samples)
    add("--no-verify", action="store_true", help="do not export and run the sim")
    add("--batch-size", type=at_least(1), default=32, help="samples per batch (default: 32)")
    add("--steps", type=at_least(1), help="read at most so many batches (default: all)")
    add("--save", metavar="FILE", help="write a page .html, the values .json, or tensors .csv")
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _auto(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    data = f"{INPUTS_HELP}; a file with labels as 'y' for --metric"
    add("--data", metavar="FILE", required=True, help=data)
    preprocess(command)
    add("--out", required=True, metavar="FOLDER", help="where to write; made if need be")
    add("--profile", default="litert_int8", help=PROFILE_HELP)
    drop = "most that the score may lose; without --score and --metric, percent of the answers"
    add("--max-drop", type=float, metavar="DROP", help=drop)
    add("--min-score", type=float, metavar="SCORE", help="what the score must reach")
    scored(command)
    train = "function that trains a sim in place, or returns another; tried last"
    add("--train", metavar="MODULE:FUNCTION", help=train)
    add("--budget", type=float, metavar="SECONDS", help="begin no stage past them")
    add("--resume", metavar="FOLDER", help="keep stages there, and go on from what it holds")
    add("--keep-going", action="store_true", help="a stage that fails is a row, not the end")
    formats = "of tflite,onnx,encodings,saved_model (default: all that the profile has)"
    add("--formats", type=lambda text: text.split(","), metavar="A,B", help=formats)
    add("--batch-size", type=at_least(1), default=32, help="samples per batch (default: 32)")
    add("--steps", type=at_least(1), help="read at most so many batches (default: all)")
    add("--save", metavar="FILE", help="write a page .html, a picture .png, .json or .csv")
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _plan(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("action", choices=("show", "diff"), help="one sim, or what differs from one to another")
    add("sims", metavar="SIM", nargs="+", help="a sim, as quantize or save_sim wrote it")
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


def _validate(command: argparse.ArgumentParser) -> None:
    command.add_argument("artifact", metavar="ARTIFACT", help=ARTIFACT_HELP)
    measured(command, metric_needed=True)
    command.add_argument("--save", metavar="FILE", help="write the values as .json or .csv")


def _compare(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help=f"the float model: {MODEL_HELP}")
    add("sim", metavar="SIM", help="the sim, as quantize or save_sim wrote it")
    add("artifacts", metavar="ARTIFACT", nargs="+", help=ARTIFACT_HELP)
    measured(command, metric_needed=False)
    runs = "timed runs of each artifact (default: %(default)s)"
    add("--runs", type=at_least(1), default=100, metavar="N", help=runs)
    add("--save", metavar="FILE", help="write a page .html, a picture .png, .json or .csv")
    add("--allow-lambda", action="store_true", help=LAMBDA_HELP)


COMMANDS = {
    "quantize": ("quantize a saved model with calibration data and export it", _quantize),
    "auto": ("find the cheapest sim that loses no more than it may, and export it", _auto),
    "demo": ("train a small model on digits, quantize, export and verify it", _demo),
    "profiles": ("list the target profiles, or show one", _profiles),
    "inspect": ("show which layers of a saved model a target computes in integers", _inspect),
    "plan": ("show where a sim has quantizers, or what differs in another", _plan),
    "grids": ("list scale, zero point, bits and range of every tensor of a sim", _grids),
    "verify": (
        "run exported files and compare them with the sim; status 1 if one differs",
        _verify,
    ),
    "diagnose": ("find which layers of a sim lose accuracy, why, and what helps", _diagnose),
    "validate": ("measure a metric of an exported file on its runtime", _validate),
    "compare": ("measure a model, its sim and exported files side by side", _compare),
    "benchmark": ("measure latency, memory and operations of an exported file", _benchmark),
}
