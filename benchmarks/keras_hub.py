"""Which backbones of KerasHub convert and quantize, how near they are, and what stays float.

    pip install keras-hub
    python benchmarks/keras_hub.py [--only NAME ...] [--table FILE]

Small configurations of random weights drawn like trained ones; none is downloaded. `outputs` is the
largest difference of the `tf_keras` form, relative to the largest number; `macs` the share of
multiply-accumulates in integers on `litert_int8`, of the TFLite file; `dB` the SQNR of the sim.
Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

# Not this folder: the script has the name of the package that it measures.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import keras_hub

import keras_edgeq as eq
from benchmarks.keras3 import like_trained
from benchmarks.macs import integer_share
from benchmarks.table import emit, head
from keras_edgeq.errors import EdgeqError

M = keras_hub.models
IMAGE = (32, 32, 3)


def mobilenet() -> keras.Model:
    """Return a MobileNetV3 of two stages."""
    return M.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144, 144]],
        stackwise_num_blocks=[2, 3],
        stackwise_num_filters=[[16, 16], [24, 24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2, 2]],
        output_num_filters=64,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=64,
        squeeze_and_excite=0.5,
        image_shape=IMAGE,
        input_num_filters=8,
    )


def efficientnet() -> keras.Model:
    """Return an EfficientNetV2 of three stages."""
    return M.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3, 3],
        stackwise_num_repeats=[1, 1, 1],
        stackwise_input_filters=[16, 16, 24],
        stackwise_output_filters=[16, 24, 32],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25, 0.25],
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=["fused", "fused", "unfused"],
        stackwise_force_input_filters=[0, 0, 0],
        stackwise_nores_option=[False, False, False],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        input_shape=IMAGE,
        num_features=64,
    )


def resnet(block_type: str = "basic_block", use_pre_activation: bool = False) -> keras.Model:
    """Return a ResNet of two stages."""
    return M.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 2],
        stackwise_num_strides=[1, 2],
        block_type=block_type,
        use_pre_activation=use_pre_activation,
        image_shape=IMAGE,
    )


def vit() -> keras.Model:
    """Return a ViT of two layers."""
    return M.ViTBackbone(
        image_shape=IMAGE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    )


def mit() -> keras.Model:
    """Return the encoder of SegFormer, of two stages."""
    return M.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        image_shape=IMAGE,
        hidden_dims=[16, 32],
    )


BACKBONES: dict[str, Callable[[], keras.Model]] = {
    "MobileNet": mobilenet,
    "EfficientNet": efficientnet,
    "ResNet": resnet,
    "ResNet, bottleneck, v2": lambda: resnet("bottleneck_block", True),
    "ViT": vit,
    "MiT": mit,
    "SegFormer": lambda: M.SegFormerBackbone(image_encoder=mit(), projection_filters=16),
}


def measure(name: str) -> tuple[str, ...]:
    """Return a row about a backbone."""
    keras.utils.set_random_seed(0)
    model = BACKBONES[name]()
    like_trained(model)
    data = np.random.default_rng(1).uniform(-1.0, 1.0, (32, *IMAGE)).astype(np.float32)
    begin = time.perf_counter()
    try:
        plain = eq.from_keras3(model)
        theirs, ours = (flat(made(data[:2], training=False)) for made in (model, plain))
        gap = max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(theirs, ours, strict=True))
        sim = eq.quantize(plain, data, progress=False)
        wanted, got = (flat(made(data, training=False))[-1] for made in (plain, sim))
        sqnr = 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - got) ** 2))
        with tempfile.TemporaryDirectory() as folder:
            report = eq.export(sim, folder, ["tflite"], verify=data[:4], progress=False)
            share = integer_share(Path(folder, "model.tflite").read_bytes())
    except EdgeqError as error:
        return name, "-", "-", "-", "-", f"{time.perf_counter() - begin:.0f}", str(error)[:200]
    floats = sorted({why.partition(" has ")[0] for why in sim.record.plan.floats.values()})
    verdict = "".join(f"; file: {run.verdict}" for run in report.runs if not run.agrees)
    seconds = f"{time.perf_counter() - begin:.0f}"
    numbers = f"{gap:.1e}", f"{sqnr:.1f}", f"{share:.0%}"
    return name, *numbers, str(len(sim.record.plan.floats)), seconds, ", ".join(floats) + verdict


def flat(made: object) -> list[np.ndarray]:
    """Return outputs as arrays, in one order."""
    return [np.asarray(keras.ops.convert_to_numpy(part)) for part in keras.tree.flatten(made)]


def main() -> None:
    """Write a row per backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(BACKBONES))
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    names = ("backbone", "outputs", "dB", "macs", "float layers", "seconds", "float: why, or error")
    emit(given.table, head(names))
    for name in given.only:
        emit(given.table, "| " + " | ".join(measure(name)) + " |")


if __name__ == "__main__":
    main()
