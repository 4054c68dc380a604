"""The versions that the suite was run with fit the bounds, and the README installs them."""

from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parts = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(part.name): str(part.specifier) for part in parts}


def requirements():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line for text in texts for line in text.splitlines() if line]
    parts = [Requirement(line) for line in lines]
    return [part for part in parts if part.name != "keras_edgeq"]


@pytest.mark.parametrize("required", requirements(), ids=str)
def test_what_is_required_is_pinned_within_its_bounds(required):
    pin = pins()[canonicalize_name(required.name)]
    assert pin.startswith("==")
    assert required.specifier.contains(pin.removeprefix("=="))


def test_every_constraint_is_one_version():
    assert all(pin.startswith("==") and "," not in pin for pin in pins().values())


@pytest.mark.parametrize("extras", ["all", "all,dev"])
def test_both_commands_of_the_readme_install_with_the_constraints(extras):
    command = f'python -m pip install -c constraints.txt ".[{extras}]" && '
    assert command in (ROOT / "README.md").read_text()
