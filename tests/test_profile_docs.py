from pathlib import Path

import pytest

import keras_edgeq as eq

PAGES = Path(__file__).parents[1] / "docs" / "profiles"


def row(name, title):
    """Return the cell beside a title in a page's table."""
    lines = (PAGES / f"{name}.md").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {title} |")]
    return line.split("|")[2].strip()


def quoted(names):
    return ", ".join(f"`{name}`" for name in names)


def test_every_profile_has_a_page_and_a_row_in_the_index():
    pages = {path.stem for path in PAGES.glob("*.md")} - {"README", "aimet-files"}
    assert pages == set(eq.profile_names())
    index = (PAGES / "README.md").read_text("utf-8")
    for name in eq.profile_names():
        profile = eq.load_profile(name)
        row_start = f"| [{name}]({name}.md) | `{profile.own.name}` | {profile.description} |"
        assert f"{row_start} {', '.join(profile.formats)} |" in index


@pytest.mark.parametrize("name", eq.profile_names())
def test_a_page_tells_the_facts_of_its_profile(name):
    profile = eq.load_profile(name)
    own = profile.own.name
    assert row(name, "precision") == f"`{own}`"
    others = [other for other in profile.precision_names if other != own]
    assert set(row(name, "other precisions").split(", ")) == {f"`{other}`" for other in others}
    assert row(name, "formats") == quoted(profile.formats)
    assert not profile.mixtures or row(name, "mixtures") == quoted(profile.mixtures)
    parts = ", ".join(f"{kind}: `{precision}`" for kind, precision in profile.parts.items())
    assert not parts or row(name, "parts") == parts
    per_channel = row(name, "a scale per channel")
    assert set(per_channel.split(", ")) == (profile.per_channel or {"no operation"})
    computes = row(name, "computes")
    wanted = {"every operation"} if profile.computes("anything") else profile.quantized
    assert set(computes.split(", ")) == wanted
    grids = {"activations": profile.activation, "weights": profile.weight}
    for title, grid in grids.items():
        cell = row(name, title)
        if grid is None or grid.is_half:
            assert cell == ("float32" if grid is None else "float16")
        else:
            assert cell.startswith(("int" if grid.signed else "uint") + str(grid.bits))
            assert ("zero point 0" in cell) == grid.symmetric
            assert cell.endswith(f"`{grid.rule}`")
    words = {"int32": "int32", "int64": "int64", "half": "float16", "float": "float32"}
    assert row(name, "biases").startswith(words[profile.bias])
    for op, rule in profile.ops.items():
        assert rule.output or f"{op}: output not quantized" in row(name, "exceptions")
        listed = f"{op}: {', '.join(rule.precisions)} only"
        assert not rule.precisions or listed in row(name, "exceptions")


@pytest.mark.parametrize("name", eq.profile_names())
def test_a_page_shows_how_to_use_its_profile(name):
    text = (PAGES / f"{name}.md").read_text("utf-8")
    assert f'eq.quantize(model, calibration, "{name}")' in text
    assert "## Limits" in text
