"""What the pages name exists: functions, their keywords, commands and their options."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

import keras_edgeq as eq
from keras_edgeq.cli import arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("*.py"))
NAMES = re.compile(r"(?<![\w.])(?:eq|keras_edgeq)((?:\.\w+)+)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
# Short for the module or the file, not attributes of the package.
FILES = {"py", "json"}


def found(path):
    """Return what a dotted name behind `eq` stands for; modules may be named without an import."""
    value = eq
    for part in path.strip(".").split("."):
        value = getattr(value, part, None)
    return value


def code(page):
    """Return the Python in a page: files, blocks, and what stands in backticks and parses."""
    text = page.read_text("utf-8")
    if page.suffix == ".py":
        return [text]
    blocks = [body for kind, body in FENCED.findall(text) if kind in ("python", "")]
    return blocks + [part for part in INLINE.findall(FENCED.sub("", text)) if "(" in part]


def calls(source):
    try:
        tree = ast.parse(source.strip())
    except SyntaxError:
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def called(call):
    """Return the public thing that is called, None for what is not ours."""
    name = ast.unparse(call.func)
    if re.fullmatch(r"eq(\.\w+)+", name):
        return found(name.removeprefix("eq"))
    if not isinstance(call.func, ast.Name):
        return None
    room = eq if name in eq.__all__ else eq.callbacks
    return getattr(room, name) if name in room.__all__ else None


def keywords_of(function):
    """Return the names that a function takes, None where it takes any."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return set(parameters)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_names_of_a_page_exist(page):
    text = page.read_text("utf-8")
    named = {name for name in NAMES.findall(text) if name.rpartition(".")[2] not in FILES}
    modules = {name for name in named if (ROOT / f"keras_edgeq{name.replace('.', '/')}").exists()}
    modules |= {n for n in named if (ROOT / f"keras_edgeq{n.replace('.', '/')}.py").exists()}
    inside = {n for n in named - modules if found(n) is None and not _in_module(n)}
    assert not inside


def _in_module(name):
    """Tell whether a name is one of a module of the package: `keras_edgeq.runtime.walk.walk`."""
    parts = name.strip(".").split(".")
    path = ROOT / "keras_edgeq" / "/".join(parts[:-1])
    source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    return source.exists() and re.search(rf"\b{parts[-1]}\b", source.read_text("utf-8")) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_keywords_of_a_page_exist(page):
    unknown = []
    for source in code(page):
        for call in calls(source):
            function = called(call)
            known = None if function is None else keywords_of(function)
            given = {keyword.arg for keyword in call.keywords} - {None}
            if known is not None and not given <= known:
                unknown.append(f"{ast.unparse(call.func)}: {sorted(given - known)}")
    assert not unknown


def command_lines():
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in re.findall(r"^(?:\$ )?((?:keras-edgeq|python -m keras_edgeq) .*)$", text, re.M):
            yield pytest.param(line, id=f"{page.stem}: {line}")


@pytest.mark.parametrize("line", [*command_lines()])
def test_a_command_line_of_a_page_parses(line):
    words = shlex.split(line.split(" #")[0])
    args = words[1:] if words[0] == "keras-edgeq" else words[3:]
    if "--help" not in args and "COMMAND" not in args:
        assert arguments.parser().parse_args(args).command in arguments.COMMANDS


def test_the_checks_see_what_is_wrong():
    (call,) = calls("eq.quantize(model, data, progres=False)")
    assert not {"progres"} <= keywords_of(called(call))
    assert found(".sensitivity") is None
    assert found(".analysis.sensitivity") is eq.analysis.sensitivity
