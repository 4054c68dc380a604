"""The `keras-edgeq` command.

It stands beside the package so that the package knows, when it is imported, that it is imported for
the command, and leaves TensorFlow for later: help, profiles and wrong arguments come at once. The
commands are in `keras_edgeq.cli`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

starting = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, as `keras-edgeq --help` lists them."""
    global starting
    starting = "keras_edgeq" not in sys.modules
    try:
        from keras_edgeq.cli.command import run

        return run(argv)
    except KeyboardInterrupt:
        print("keras-edgeq: stopped.", file=sys.stderr)
        return 130
    finally:
        starting = False


if __name__ == "__main__":
    # The package looks for this module under its name, which it does not have when it is run.
    from keras_edgeq_cli import main

    sys.exit(main())
