"""What a saved model may name: classes and functions of Keras, and operations of TensorFlow.

A configuration names what Keras looks up, imports and calls. All other names are refused before
Keras sees the file, harmless or not.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.keras3.guard import READERS

# Classes that load no Python of the user's, and still read files or call methods by name.
DENIED = frozenset({
    "Lambda", "DenseFeatures", "SequenceFeatures", "TensorFlowOpLayer", "ClassMethod",
    "InstanceMethod", "InstanceProperty", "LinearModel", "WideDeepModel",
})  # fmt: skip
# Classes that the public modules of `tf_keras` do not show and its files name.
INTERNAL = frozenset({
    "Functional", "Model", "Sequential", "TFOpLambda", "SlicingOpLambda", "AddLoss", "AddMetric",
    "BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization", "CuDNNGRU",
    "CuDNNLSTM", "GRUCellV1", "GRUCellV2", "GRUV1", "GRUV2", "LSTMCellV1", "LSTMCellV2", "LSTMV1",
    "LSTMV2", "DropoutWrapper", "ResidualWrapper", "DeviceWrapper", "PolicyV1", "PolicyV2",
    "ListWrapper", "DictWrapper", "LayerScale",
})  # fmt: skip
ROOTS = frozenset({"keras", "tf_keras"})
FUNCTION_MODULES = ("activations", "initializers", "losses", "metrics", "regularizers")
CLASS_MODULES = (*FUNCTION_MODULES, "layers", "models", "constraints", "optimizers",
                 "mixed_precision")  # fmt: skip

# Whole name spaces of TensorFlow that compute and do nothing else.
NAME_SPACES = (
    "math", "nn", "linalg", "image", "signal", "bitwise", "strings", "quantization", "sparse",
    "dtypes", "__operators__", "experimental.numpy",
)  # fmt: skip
_OPERATIONS = """
    abs acos acosh add add_n argmax argmin argsort asin asinh atan atan2 atanh batch_gather
    batch_to_space batch_to_space_nd bitcast boolean_mask broadcast_dynamic_shape
    broadcast_static_shape broadcast_to cast ceil clip_by_global_norm clip_by_norm clip_by_value
    complex concat convert_to_tensor cos cosh cumprod cumsum depth_to_space div divide
    dynamic_partition dynamic_stitch edit_distance eig eigvals einsum ensure_shape equal erf
    erfc exp expand_dims expm1 extract_image_patches extract_volume_patches eye fft fill
    fingerprint floor floor_div floordiv floormod gather gather_nd greater greater_equal
    guarantee_const histogram_fixed_width histogram_fixed_width_bins identity identity_n ifft
    imag less less_equal linspace log log1p log_sigmoid logical_and logical_not logical_or
    logical_xor matmul matrix_band_part matrix_diag matrix_diag_part matrix_inverse
    matrix_set_diag matrix_solve matrix_square_root matrix_transpose maximum meshgrid minimum
    mod multiply negative norm not_equal one_hot ones ones_like pad parallel_stack pow qr range
    rank real realdiv reciprocal reduce_all reduce_any reduce_logsumexp reduce_max reduce_mean
    reduce_min reduce_prod reduce_sum repeat required_space_to_batch_paddings reshape reverse
    reverse_sequence reverse_v2 rint roll round rsqrt saturate_cast scalar_mul scatter_nd
    searchsorted segment_max segment_mean segment_min segment_prod segment_sum sequence_mask
    shape shape_n sigmoid sign sin sinh size slice sort space_to_batch space_to_batch_nd
    space_to_depth split sqrt square squared_difference squeeze stack stop_gradient
    strided_slice subtract svd tan tanh tensor_scatter_nd_add tensor_scatter_nd_max
    tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile
    to_bfloat16 to_double to_float to_int32 to_int64 trace transpose truediv truncatediv
    truncatemod unique unique_with_counts unravel_index unsorted_segment_max
    unsorted_segment_mean unsorted_segment_min unsorted_segment_sum unstack where where_v2 zeros
    zeros_like random.normal random.uniform random.truncated_normal random.shuffle
    random.categorical random.stateless_normal random.stateless_uniform
    random.stateless_truncated_normal debugging.check_numerics debugging.assert_equal
    debugging.assert_greater debugging.assert_greater_equal debugging.assert_less
    debugging.assert_less_equal debugging.assert_near debugging.assert_non_negative
    debugging.assert_none_equal debugging.assert_positive debugging.assert_rank
    debugging.assert_shapes
"""
_BACKEND = """
    abs all any argmax argmin batch_dot batch_flatten batch_normalization bias_add
    binary_crossentropy cast cast_to_floatx categorical_crossentropy clip concatenate conv1d
    conv2d conv2d_transpose conv3d cos cumprod cumsum depthwise_conv2d dot dropout elu equal exp
    expand_dims flatten gather greater greater_equal hard_sigmoid l2_normalize less less_equal
    local_conv1d local_conv2d log max maximum mean min minimum ndim not_equal one_hot ones_like
    permute_dimensions pool2d pool3d pow prod relu repeat repeat_elements reshape resize_images
    resize_volumes reverse round separable_conv2d shape sigmoid sign sin softmax softplus
    softsign sparse_categorical_crossentropy spatial_2d_padding spatial_3d_padding sqrt square
    squeeze stack std stop_gradient sum tanh temporal_padding tile transpose var zeros_like
"""
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
# Members of these name spaces that read files, or switch something for the whole process.
EXCEPTED = re.compile(
    r".*fixed_unigram_candidate_sampler|experimental\.numpy\.(random\..*|experim.*)"
)

# Kernels whose names say that they reach files, other processes, devices or the log.
REACHING = re.compile(
    r"File|Save|Restore|PyFunc|Dataset|Iterator|Reader|Print|Summary|Debug|Dump|Socket|Rpc|Remote"
    r"|Library|Checkpoint|TFRecord|Infeed|Outfeed|Send|Recv|Sql|TPU|Collective|Nccl|Sleep|Stage"
    r"|Copy|Host|Timestamp|Worker|Snapshot|Proto|Shard|Merge.+Checkpoint|Xla|LMDB|Abort"
    r"|ImmutableConst|Vocab|Queue|Barrier|Accumulator|FixedUnigram"
)
# An iterator is read where the caller gives one, as `adapt` of Normalization does; what makes one
# is in REACHING.
_STATEFUL = """
    Assert AssignAddVariableOp AssignSubVariableOp AssignVariableOp Case CheckNumerics
    CheckNumericsV2 CudnnRNNBackpropV2 CudnnRNNBackpropV3 CudnnRNNV2 CudnnRNNV3
    DestroyResourceOp DisableCopyOnRead Empty GuaranteeConst HashTableV2 If InitializeTableV2
    IteratorGetNext IteratorGetNextAsOptional IteratorGetNextSync
    LookupTableExportV2 LookupTableFindV2 LookupTableImportV2 LookupTableInsertV2
    LookupTableSizeV2 Multinomial MutableHashTableV2 NonDeterministicInts RandomGamma
    RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt
    ReadVariableOp ResourceGather ResourceGatherNd ResourceScatterAdd ResourceScatterUpdate
    RngReadAndSkip RngSkip StatefulPartitionedCall StatefulStandardNormalV2
    StatefulTruncatedNormal StatefulUniform StatefulUniformFullInt StatefulUniformInt
    StatelessRandomGetAlg TemporaryVariable TensorArrayCloseV3 TensorArrayConcatV3
    TensorArrayGatherV3 TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3
    TensorArraySplitV3 TensorArrayV3 TensorArrayWriteV3 TruncatedNormal VarHandleOp
    VarIsInitializedOp VariableShape While
"""
OPTIMIZERS = re.compile(r"Resource(Sparse)?Apply[A-Za-z0-9]+")

OPERATIONS = frozenset(_OPERATIONS.split()) | {f"keras.backend.{one}" for one in _BACKEND.split()}
STATEFUL = frozenset(_STATEFUL.split())


@cache
def classes() -> frozenset[str]:
    """Return the names of the classes that a configuration may hold."""
    found = {name for name, item in _public(CLASS_MODULES) if inspect.isclass(item)}
    return frozenset((found | INTERNAL) - DENIED)


@cache
def functions() -> frozenset[str]:
    """Return the names of the functions that a configuration may hold."""
    found = {name for name, item in _public(FUNCTION_MODULES) if inspect.isfunction(item)}
    return frozenset(found - READERS)


def is_operation(symbol: str) -> bool:
    """Tell whether a function of TensorFlow, by its public name, only computes."""
    symbol = symbol.removeprefix("compat.v1.")
    if not SYMBOL.fullmatch(symbol) or EXCEPTED.fullmatch(symbol):
        return False
    space, _, name = symbol.rpartition(".")
    if space == "raw_ops":
        return is_kernel(name)
    if space.removeprefix("keras.") in FUNCTION_MODULES:
        return name in functions()
    return symbol in OPERATIONS or any(f"{space}.".startswith(f"{one}.") for one in NAME_SPACES)


@cache
def is_kernel(op: str) -> bool:
    """Tell whether an operation in a graph only computes, or keeps variables and tables."""
    if op in STATEFUL or OPTIMIZERS.fullmatch(op):
        return True
    if REACHING.search(op) or not hasattr(tf.raw_ops, op):
        return op in ("PartitionedCall", "Placeholder", "NoOp", "Const")
    return not _is_stateful(op)


def is_keras_module(module: Any) -> bool:
    """Tell whether a module in a configuration is Keras' own; a file may leave it out."""
    if module is None or module == "builtins":
        return True
    return bool(SYMBOL.fullmatch(str(module))) and str(module).partition(".")[0] in ROOTS


def _is_stateful(op: str) -> bool:
    with tf.Graph().as_default() as graph:
        return graph.op_def_for_type(op).is_stateful  # pyright: ignore


def _public(modules: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield what modules of `tf_keras`, and the modules inside them, show."""
    waiting = [getattr(tf_keras, name) for name in modules]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        seen.add(module.__name__)
        for name, item in vars(module).items():
            if name.startswith("_"):
                continue
            if not isinstance(item, ModuleType):
                yield name, item
            elif item.__name__.startswith("tf_keras.") and item.__name__ not in seen:
                waiting.append(item)
