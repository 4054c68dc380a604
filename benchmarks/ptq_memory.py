"""Peak memory of the techniques that keep activations, under caps.

    python benchmarks/ptq_memory.py DATA_FOLDER [--images 500] [--caps 0.25,2] [--table FILE]

MobileNetV1-0.75 at 224x224, W4A8, images read one batch at a time. A process per row: "store" is
the most that stored activations took of memory at a time, which `memory_bytes` bounds, for AdaRound
to its half, as the samples it draws have the other; "before" is what the process held behind
`eq.quantize`, "peak" the most it held from there on, TensorFlow, model and work buffers included.
GB are 10^9 bytes. Needs Linux; allow half an hour per row on two cores.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tf_keras
from data import CASES, logits
from table import emit, head

import keras_edgeq as eq
from keras_edgeq.ptq import session as workshop
from keras_edgeq.streams.store import TensorStore

MODEL = "MobileNetV1-0.75"
# More iterations take time, not memory.
TECHNIQUES = {"gptq": eq.gptq, "adaround": partial(eq.adaround, iterations=100)}
HEAD = ("technique", "images", "cap, GB", "store, GB", "before, GB", "peak, GB", "seconds")
BATCH = 32
GB = 1e9


def images(folder: Path, count: int) -> Iterator[np.ndarray]:
    """Yield batches of images, beyond the file's own mirrored ones."""
    from PIL import Image

    with np.load(folder / "imagenet_dev.npz") as data:
        jpeg, offset = data["jpeg"].tobytes(), data["offset"]
    own = len(offset) - 1
    for first in range(0, count, BATCH):
        batch = []
        for i in range(first, min(first + BATCH, count)):
            content = io.BytesIO(jpeg[offset[i % own] : offset[i % own + 1]])
            image = np.asarray(Image.open(content).convert("RGB"), np.float32) / 127.5 - 1.0
            batch.append(image[:, ::-1] if i >= own else image)
        yield np.stack(batch)


def measure(folder: Path, technique: str, count: int, cap: float) -> list[str]:
    """Return one row of the table."""
    stores: list[TensorStore] = []

    def noted(*args) -> TensorStore:
        stores.append(TensorStore(*args))
        return stores[-1]

    model = logits(tf_keras.models.load_model(folder / CASES[MODEL][0], compile=False))
    sim = eq.quantize(model, images(folder, 128), precision={"*": "W4A8"}, progress=False)
    before, start = forget_peak(), time.perf_counter()
    options = {"memory_bytes": int(cap * GB), "progress": False}
    with patch.object(workshop, "TensorStore", noted):
        TECHNIQUES[technique](sim, images(folder, count), **options)
    seconds = time.perf_counter() - start
    store = max(store.peak_bytes for store in stores)
    sizes = [f"{size / GB:.2f}" for size in (store, before, peak_bytes())]
    return [technique, str(count), f"{cap:g}", *sizes, f"{seconds:.0f}"]


def peak_bytes() -> int:
    """Return the most memory that this process held, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> int:
    """Let the peak of this process be what it holds now, and return that."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def main() -> None:
    """Write the table, one process per row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--caps", default="0.25,2", help="GB, split at commas")
    parser.add_argument("--techniques", default=",".join(TECHNIQUES), help="split at commas")
    parser.add_argument("--table", type=Path, help="file to write")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    techniques, caps = options.techniques.split(","), options.caps.split(",")
    if unknown := set(techniques) - set(TECHNIQUES):
        parser.error(f"no such techniques: {sorted(unknown)}; there are {', '.join(TECHNIQUES)}")
    if options.row:
        row = measure(options.folder, techniques[0], options.images, float(caps[0]))
        print("| " + " | ".join(row) + " |")
        return
    emit(options.table, head(HEAD))
    for technique in techniques:
        for cap in caps:
            asked = ["--techniques", technique, "--caps", cap, "--images", str(options.images)]
            child = subprocess.run(
                [sys.executable, __file__, str(options.folder), *asked, "--row"],
                stdout=subprocess.PIPE,
                text=True,
            )
            if child.returncode:
                print(f"{technique} under {cap} GB failed, see above", file=sys.stderr)
            else:
                emit(options.table, child.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
