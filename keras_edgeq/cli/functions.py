"""Functions of the user, named on the command line as `module:function`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from keras_edgeq.errors import EdgeqError
from keras_edgeq.nearest import did_you_mean


def function(named: str, option: str) -> Callable[..., Any]:
    """Return a function of a module, which is also looked for in the current folder.

    Args:
        named: `"module:function"`.
        option: where it was given, for errors.

    Raises:
        EdgeqError: there is no such module or function, or the module fails.
    """
    module, colon, name = named.partition(":")
    if not (module and colon and name):
        raise EdgeqError(f"{option} is MODULE:FUNCTION, such as score:accuracy, not {named!r}.")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise EdgeqError(f"{option} {named}: {error}. Modules are looked for in {here} too.") from (
            None if error.name == module else error
        )
    except Exception as error:
        raise EdgeqError(f"{option} {named}: importing {module} failed: {error!r}.") from error
    made = getattr(found, name, None)
    if not callable(made):
        hint = did_you_mean(name, [one for one in vars(found) if not one.startswith("_")])
        raise EdgeqError(f"{option} {named}: {module} has no function {name!r}.{hint}")
    return made
