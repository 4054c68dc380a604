"""Damaged copies of valid files, the same ones on every run, and the readers they go to."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

import keras_edgeq as eq
from keras_edgeq.export.encodings import keras_encodings
from keras_edgeq.sim.data import batches
from keras_edgeq.sim.stats import CalibrationStats

L = tf_keras.layers
KERAS3 = Path(__file__).parent / "keras3" / "files"
BYTES = (0, 1, 127, 128, 255)
HOSTILE = (
    None, True, [], {}, "", "x", 0, -1, 0.5, -0.0, 1e300, -1e300, 1e-300, 10**9, 10**40, "8",
    [[]], [0] * 1000, {"a": 1}, "\u0000",
)  # fmt: skip
TEXTS = {
    "empty": b"",
    "not UTF-8": b'{"version": "\xff\xfe"}',
    "NaN": b'{"version": NaN}',
    "Infinity": b'{"version": "1.0.0", "x": -Infinity}',
    "deep lists": b"[" * 500_000,
    "deep objects": b'{"a":' * 200_000,
    "long integer": b'{"version": ' + b"9" * 900_000 + b"}",
    "long float": b'{"version": 0.' + b"9" * 900_000 + b"}",
    "many entries": json.dumps(
        {"version": "1.0.0", "activation_encodings": [0] * 300_000, "param_encodings": []}
    ).encode(),
    "long list": b"[" + b"0," * 400_000 + b"0]",
    "name twice": b'{"version": "1.0.0", "version": "2.0.0"}',
    "null": b"null",
}


@dataclass(frozen=True)
class Reader:
    """A reader, a valid file for it, and how its files are damaged."""

    name: str
    read: Callable[[Path], Any]
    valid: Path
    is_json: bool = False


def readers(folder: Path) -> list[Reader]:
    """Write one valid file per reader, and return all readers."""
    x = tf_keras.Input((4, 4, 2), name="image")
    y = L.Add(name="sum")([L.Conv2D(2, 1, activation="relu", name="conv")(x), x])
    model = tf_keras.Model(x, L.Dense(2, name="head")(L.Flatten(name="flat")(y)))
    data = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    eq.export(sim, folder, ["tflite", "onnx"], verify=False, progress=False)
    eq.save_sim(sim, folder / "sim.keras")
    model.save(folder / "float.keras")
    model.save(folder / "float.h5")
    np.savez(folder / "data.npz", image=data)
    (folder / "profile.json").write_text(json.dumps(eq.load_profile("litert_int8").to_json()))
    found = [
        Reader("statistics", CalibrationStats.load, folder / "sim.stats.npz"),
        Reader("profile", eq.load_profile, folder / "profile.json", True),
        Reader("sim", eq.load_sim, folder / "sim.keras"),
        Reader("keras model", eq.load_model, folder / "float.keras"),
        Reader("h5 model", eq.load_model, folder / "float.h5"),
        Reader("keras 3 model", eq.load_model, KERAS3 / "transfer.keras"),
        Reader("keras 3 h5 model", eq.load_model, KERAS3 / "transfer.h5"),
        Reader("tflite", lambda path: eq.verify(sim, path), folder / "model.tflite"),
        Reader("onnx", lambda path: eq.verify(sim, path), folder / "model.onnx"),
        Reader("data", lambda path: list(batches(path, model)), folder / "data.npz"),
    ]
    for version in ("0.6.1", "1.0.0", "2.0.0"):
        path = folder / f"encodings-{version}.json"
        path.write_text(json.dumps(keras_encodings(sim, version)))
        found.append(
            Reader(
                f"encodings {version}", lambda path: eq.load_encodings(sim, path, False), path, True
            )
        )
    return found


def damaged(reader: Reader, seed: int) -> bytes:
    """Return the reader's file with damage number `seed`."""
    chance, content = random.Random(seed), reader.valid.read_bytes()
    if reader.is_json and seed % 2:
        return _swapped(content, chance)
    if seed % 6 == 0:
        return content[: chance.randrange(len(content))]
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        made[chance.randrange(len(made))] = chance.choice((*BYTES, chance.randrange(256)))
    return bytes(made)


def _swapped(content: bytes, chance: random.Random) -> bytes:
    """Return JSON with one value, anywhere, replaced by a hostile one."""
    document = json.loads(content)
    places: list[tuple[Any, Any]] = []
    stack = [document]
    while stack:
        part = stack.pop()
        keys = part.keys() if isinstance(part, dict) else range(len(part))
        for key in keys:
            places.append((part, key))
            if isinstance(part[key], dict | list):
                stack.append(part[key])
    part, key = chance.choice(places)
    part[key] = chance.choice(HOSTILE)
    return json.dumps(document).encode()


def inner_damaged(reader: Reader, seed: int) -> bytes:
    """Return a `.keras` file with a value of its configuration swapped, checksums intact."""
    return _with_config(reader.valid, lambda content: _swapped(content, random.Random(seed)))


def with_config(source: Path, target: Path, change: Callable[[Any], None]) -> None:
    """Write a `.keras` file with a changed configuration."""

    def changed(content: bytes) -> bytes:
        config = json.loads(content)
        change(config)
        return json.dumps(config).encode()

    target.write_bytes(_with_config(source, changed))


def _with_config(source: Path, change: Callable[[bytes], bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info, change(content) if info.filename == "config.json" else content)
    return made.getvalue()


def archive(**members: bytes) -> bytes:
    """Return a zip of compressed members."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for name, content in members.items():
            new.writestr(name.replace("__", "."), content)
    return made.getvalue()


def header(shape: tuple[int, ...], dtype: Any) -> bytes:
    """Return the head of an `.npy` file that declares an array."""
    made = io.BytesIO()
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(made, described)
    return made.getvalue()


def bombs() -> dict[str, tuple[str, bytes]]:
    """Return hostile archives by name: the suffix they go by, and the content."""
    zeros = bytes(260_000_000)
    return {
        "declared huge": (".npz", archive(head__npy=header((10**12,), np.uint8))),
        "declared beyond 64 bits": (".npz", archive(head__npy=header((2**62, 2**62), np.int64))),
        "negative shape": (".npz", archive(head__npy=header((-1, 10**9), np.uint8))),
        "array bomb": (".npz", archive(head__npy=header((260_000_000,), np.uint8) + zeros)),
        "objects": (".npz", archive(head__npy=header((2,), object) + b"\x80\x04N.")),
        "model bomb": (
            ".keras",
            archive(
                config__json=b"{}", metadata__json=b"{}", model__weights__h5=zeros[:40_000_000]
            ),
        ),
    }


def as_file(folder: Path, suffix: str, content: bytes) -> Path:
    """Write a file that no older statistics lie beside."""
    folder.mkdir(exist_ok=True)
    path = folder / f"damaged{suffix}"
    shutil.rmtree(path, ignore_errors=True)
    path.write_bytes(content)
    return path
