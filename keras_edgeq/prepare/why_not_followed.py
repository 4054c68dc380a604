"""What a symbolic call of the user's code met, in words, with the file and line of it."""

from __future__ import annotations

import linecache
import sysconfig
from pathlib import Path
from types import TracebackType

LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib", "stdlib")
)
OURS = str(Path(__file__).resolve().parents[1])


def reason(error: BaseException) -> str:
    """Return what a failed symbolic call met, with the file and line of the user's code."""
    where, line, called = "", "", ""
    frame: TracebackType | None = error.__traceback__
    while frame is not None:
        code, number = frame.tb_frame.f_code, frame.tb_lineno
        path = str(Path(code.co_filename).resolve())
        if not path.startswith((*LIBRARIES, OURS)) and Path(path).suffix == ".py":
            line = linecache.getline(code.co_filename, number).strip()
            where = f"{Path(path).name}, line {number}, in {code.co_name}: `{line}`: "
            called = "" if frame.tb_next is None else frame.tb_next.tb_frame.f_code.co_name
        frame = frame.tb_next
    text = " ".join(str(error).split())
    for kind, is_of in KINDS.items():
        if is_of(text, line, called):
            return f"{where}{kind}"
    return f"{where}{type(error).__name__}: {text[:200]}"


def _is_condition(text: str, line: str, _: str) -> bool:
    return "__len__" in text or ("bool" in text and line.startswith(("if ", "elif ", "while ")))


KINDS = {
    "a condition on the values of a tensor (if, while, and, or); use tf.where": _is_condition,
    "a Python loop over a tensor, or a size that is a tensor; use whole-tensor operations": (
        lambda text, *_: "Cannot iterate" in text or "interpreted as an integer" in text
    ),
    "a NumPy function on a symbolic tensor; use the TensorFlow one": (
        lambda text, _, called: called == "__array__" or "has no attribute 'numpy'" in text
    ),
    "a number of Python made of a tensor; keep it a tensor": (
        lambda text, *_: "argument must be a string" in text
    ),
    "a size of x.shape that is not known; use tf.shape(x)": (
        lambda text, *_: "NoneType" in text
    ),
    "a variable that the call assigns to, or a function that TensorFlow does not record "
    "(tf.cond, tf.while_loop, tf.map_fn, or one decorated with tf.function)": (
        lambda text, *_: "KerasTensor" in text or "FuncGraph" in text
    ),
}  # fmt: skip
