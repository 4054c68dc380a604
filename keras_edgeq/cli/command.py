"""Run one command: what it prints where, and how it ends."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_edgeq.cli import arguments
from keras_edgeq.cli.log_filter import filtered_stderr
from keras_edgeq.errors import EdgeqError, QuantizationWarning

DISAGREES, WRONG, FAULT, CLOSED = 1, 2, 3, 141
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# What is done without TensorFlow.
LIGHT = ("profiles",)


@dataclass(frozen=True)
class Result:
    """What a command found.

    Args:
        text: for people.
        values: the same as JSON values.
        brief: what `--quiet` leaves of the text.
        status: exit status.
    """

    text: str
    values: Any
    brief: str = ""
    status: int = 0


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    args = arguments.parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _shown(args.verbose)
        return _ended(args)


def _ended(args: Namespace) -> int:
    """Run the command, and say in one line what ended it."""
    try:
        from keras_edgeq.cli import checks  # not needed for help

        checks.check(args)
        with _streams(args):
            if args.command not in LIGHT:
                load(args.verbose)
            command = importlib.import_module(f"keras_edgeq.cli.{args.command}")
            result: Result = command.run(args)
        _print(result, args)
        return result.status
    except EdgeqError as error:
        say(" ".join(str(error).split()))
        return WRONG
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it ends.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except OSError as error:
        say(f"{error.filename or 'a file'}: {error.strerror or error}")
        return WRONG
    except Exception:
        traceback.print_exc()
        say("this is a fault of keras-edgeq; please report it with the lines above")
        return FAULT


def load(verbose: bool = True) -> None:
    """Import the whole package, whose own import was cut short for the command."""
    import keras_edgeq

    if "describe" not in vars(keras_edgeq):
        sys.modules["keras_edgeq_cli"].starting = False  # type: ignore[attr-defined]
        importlib.reload(keras_edgeq)
    if not verbose:
        import logging

        from absl import logging as absl_logging

        # What TensorFlow's Python side warns of here (gradients, optimizers) is not the user's
        # doing.
        absl_logging.set_verbosity(absl_logging.ERROR)
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


def say(message: str) -> None:
    """Print a line about the run on stderr."""
    print("keras-edgeq:", message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _streams(args: Namespace) -> Iterator[None]:
    """Keep log lines off stderr, and all but the result off stdout for `--json`."""
    with contextlib.ExitStack() as stack:
        if args.verbose:
            os.environ.setdefault(LOG_LEVEL, "0")
        hidden = not args.verbose and os.environ.get(LOG_LEVEL) != "0"
        if hidden and args.command not in LIGHT:
            os.environ.setdefault(LOG_LEVEL, "3")
            if "tensorflow" not in sys.modules:
                stack.enter_context(filtered_stderr())
        if args.json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            stack.enter_context(_file_1_on_2())
        yield


@contextlib.contextmanager
def _file_1_on_2() -> Iterator[None]:
    """Send what libraries print to file 1 to stderr."""
    try:
        real = os.dup(1)
    except OSError:
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(real, 1)
        os.close(real)


def _print(result: Result, args: Namespace) -> None:
    text = result.brief if args.quiet else result.text
    if args.json:
        text = json.dumps(result.values, indent=1, allow_nan=False)
    if text:
        print(text, flush=True)


def _shown(verbose: bool) -> Any:
    """Return what prints Python's warnings: one line each, those of others only if asked for."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        own = issubclass(category, QuantizationWarning) or "keras_edgeq" in filename
        if own or verbose:
            say(f"warning: {' '.join(str(message).split())}")

    return show
