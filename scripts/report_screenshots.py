"""Write the pictures in docs/images: a diagnosis with a planted fault.

    python scripts/report_screenshots.py [--page report.html]

Needs Chromium, `plotly`, `pillow` and, for the curve of a search, `matplotlib`.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import tf_keras

import keras_edgeq as eq
from tests.browser import Browser, program

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
# Name -> width, whether dark, and the section it shows; none shows the top of the page.
PICTURES = {
    "report-light": (1280, False, None),
    "report-dark": (1280, True, None),
    "report-phone": (390, False, None),
    "report-network": (1280, False, "Network"),
    "report-network-phone": (390, True, "Network"),
    "report-errors": (1280, False, "Errors through the network"),
    "report-quantizers": (1280, True, "Quantizers, one by one"),
    "report-activations": (1280, False, "Activations"),
    "report-weights": (1280, False, "Weights of each channel"),
    "report-weights-phone": (390, False, "Weights of each channel"),
    "report-layers": (1280, False, "Layers"),
}


def network() -> tf_keras.Model:
    """Return residual blocks; channels of a depthwise layer have weights of unequal size."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    inputs = x = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(x)
    for n in range(1, 5):
        y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"block{n}_dw")(x)
        y = layers.Conv2D(16, 1, name=f"block{n}_pw")(y)
        x = layers.ReLU(name=f"block{n}_relu")(layers.Add(name=f"block{n}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = tf_keras.Model(inputs, layers.Dense(10, name="logits")(x), name="residual")
    kernel, bias = model.get_layer("block2_dw").get_weights()
    spread = np.geomspace(0.01, 8.0, 16)
    model.get_layer("block2_dw").set_weights([kernel * spread[:, None], bias])
    behind, bias = model.get_layer("block2_pw").get_weights()
    model.get_layer("block2_pw").set_weights([behind / spread[:, None], bias])
    return model


def write_page(path: Path) -> None:
    """Diagnose the network for a target with one scale per tensor and save the page."""
    model = network()
    x = np.random.default_rng(0).normal(size=(128, 16, 16, 3)).astype("float32")
    wanted = model.predict(x, verbose=0).argmax(-1)

    def score(candidate: tf_keras.Model) -> float:
        return float(np.mean(candidate.predict(x, verbose=0).argmax(-1) == wanted))

    sim = eq.quantize(model, x, "litert_int8_per_tensor", progress=False)
    found = eq.diagnose(sim, x, score, remedies=3, progress=False)
    print(found)
    found.save(path)


def write_pictures(page: Path) -> None:
    """Open the page in a browser and write what it shows."""
    from PIL import Image

    FOLDER.mkdir(exist_ok=True)
    with Browser() as browser:
        for name, (width, dark, section) in PICTURES.items():
            height = 800 if width > 500 else 760
            browser.open(page, width, height, dark, phone=width < 500)
            browser.ask("new Promise((done) => setTimeout(done, 300))")
            clip = None if section is None else browser.ask(_place(section, width))
            shown = Image.open(io.BytesIO(browser.picture(clip))).convert("RGB")
            path = FOLDER / f"{name}.png"
            shown.save(path, optimize=True)
            print(f"{path.name}: {shown.size}, {path.stat().st_size:,} bytes, {browser.errors}")


def _place(section: str, width: int) -> str:
    """Return JavaScript for the place of a section on the page."""
    return (
        "(() => { const one = [...document.querySelectorAll('section')].find("
        f"(s) => s.querySelector('h2').textContent === {section!r}).getBoundingClientRect();"
        f"return [Math.max(0, one.x - 16), one.y + scrollY - 8, Math.min({width}, one.width + 32), "
        "Math.min(760, one.height + 16)]; })()"
    )


def main() -> None:
    """Make the page, unless one is given, and its pictures."""
    parser = argparse.ArgumentParser(description="Write the pictures of the report in docs/images.")
    parser.add_argument("--page", type=Path, help="where the page is kept; made if missing")
    page = parser.parse_args().page
    if program() is None:
        sys.exit("No Chromium here.")
    with tempfile.TemporaryDirectory() as folder:
        page = page or Path(folder) / "report.html"
        if not page.exists():
            write_page(page)
        write_pictures(page)


if __name__ == "__main__":
    main()
