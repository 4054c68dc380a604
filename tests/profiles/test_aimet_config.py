import copy
import json
from pathlib import Path

import pytest

from keras_edgeq.errors import ProfileError
from keras_edgeq.profiles import TargetProfile, load_profile
from keras_edgeq.spec import QuantSpec

FOLDER = Path(__file__).parent / "aimet"
DEFAULT = json.loads((FOLDER / "default.json").read_text("utf-8"))
INT = "int"


def kernel(activation, param=None, dtype=INT):
    entry = {"activation": {"bitwidth": activation, "dtype": dtype}}
    return entry if param is None else {**entry, "param": {"bitwidth": param, "dtype": dtype}}


@pytest.fixture
def read(tmp_path):
    """Load the default configuration with some values changed, by the path of each."""

    def read(changes=None, name="mine.json"):
        data = copy.deepcopy(DEFAULT)
        for path, value in (changes or {}).items():
            *parents, last = path.split("/")
            inner = data
            for key in parents:
                inner = inner.setdefault(key, {})
            inner[last] = value
        path = tmp_path / name
        path.write_text(json.dumps(data), "utf-8")
        return load_profile(path)

    return read


@pytest.mark.parametrize("name", ["default", "htp_v73", "htp_v81"])
def test_a_configuration_becomes_a_profile_that_survives_json(name):
    profile = load_profile(FOLDER / f"{name}.json")
    assert profile.name == name
    assert TargetProfile.from_json(json.loads(json.dumps(profile.to_json()))) == profile


def test_the_default_configuration_is_the_profile_of_that_name(read):
    assert same_rules(read()) == same_rules(load_profile("aimet_default"))


def test_the_per_channel_configuration_is_the_profile_of_that_name(read):
    off = {"per_channel_quantization": "False"}
    profile = read({
        "defaults/per_channel_quantization": "True",
        "op_type/Gemm": off, "op_type/MatMul": off, "op_type/LayerNormalization": off,
    })  # fmt: skip
    assert same_rules(profile) == same_rules(load_profile("aimet_per_channel"))
    assert {"Conv2D", "DepthwiseConv2D", "ConvTranspose2D"} <= profile.per_channel
    assert not {"Dense", "EinsumDense"} & profile.per_channel


def same_rules(profile):
    return {**profile.to_json(), "name": "", "description": ""}


def test_the_default_grids_are_those_of_aimet(read):
    profile = read()
    assert profile.own.name == "W8A8"
    assert profile.activation == QuantSpec(8, signed=False, rule="sqnr")
    assert profile.weight == QuantSpec(8, symmetric=True, rule="sqnr")
    assert (profile.bias, profile.per_channel) == ("float", frozenset())
    assert profile.computes("LayerNormalization")


def test_booleans_of_json_are_taken_as_well(read):
    assert same_rules(read({"defaults/ops/is_output_quantized": True})) == same_rules(read())


def test_supergroups_become_chains_of_all_their_layers(read):
    fused = set(read().fused)
    assert {("DepthwiseConv2D", "Relu"), ("Conv1D", "Relu6"), ("Dense", "Relu")} <= fused
    assert ("ConvTranspose2D", "Relu6") not in fused


def test_a_batch_norm_in_a_supergroup_does_not_count(read):
    with_norm = [["Conv", "BatchNormalization", "Relu"], ["Conv", "BatchNormalization"]]
    groups = [{"op_list": ops} for ops in with_norm]
    plain = read({"supergroups": [{"op_list": ["Conv", "Relu"]}]})
    assert read({"supergroups": groups}).fused == plain.fused


def test_a_supergroup_of_an_operation_that_keras_lacks_is_none(read):
    assert read({"supergroups": [{"op_list": ["Conv", "HardSwish"]}]}).fused == ()


def test_operations_without_an_output_quantizer_make_floats_or_keep_the_grid(read):
    profile = read({"op_type/Concat": {"is_output_quantized": "False"},
                    "op_type/MaxPool": {"is_output_quantized": "False"}})  # fmt: skip
    assert not profile.ops["Concat"].output
    assert {"MaxPool", "Pad", "Reshape"} <= profile.same_grid
    assert "MaxPool" not in read().same_grid


def test_a_global_average_pool_is_not_the_mean_of_the_configuration(read):
    assert "Mean" not in read().ops
    assert not read({"op_type/ReduceMean": {"is_output_quantized": "False"}}).ops["Mean"].output


def test_settings_of_an_operation_win_over_params_and_defaults(read):
    profile = read({
        "params/weight": {"is_symmetric": "False"},
        "op_type/Conv": {"is_symmetric": "True", "params": {"weight": {"is_symmetric": "True"}}},
        "op_type/PRelu": {"params": {"weight": {"is_quantized": "False"}}},
    })  # fmt: skip
    assert not profile.weight.symmetric
    assert profile.ops["DepthwiseConv2D"].weight["symmetric"] is True
    assert profile.ops["Conv2D"].activation["symmetric"] is True
    assert profile.ops["PRelu"].weights is False
    assert "Dense" not in profile.ops


def test_strict_symmetric_leaves_out_the_lowest_integer(read):
    profile = read({"defaults/strict_symmetric": "True", "defaults/ops/is_symmetric": "True"})
    assert profile.weight.narrow_range
    assert profile.activation.narrow_range


def test_unsigned_symmetric_lets_the_data_decide(read):
    profile = read({"defaults/unsigned_symmetric": "True", "defaults/ops/is_symmetric": "True"})
    assert profile.weight.signed is None
    assert profile.activation.signed is None


def test_a_quantized_bias_has_the_grid_of_a_kernel(read):
    assert read({"params/bias": {"is_quantized": "True"}}).bias == "int32"
    assert read({"params": {}}).bias == "int32"


def test_constraints_fix_ranges(read):
    profile = load_profile(FOLDER / "htp_v81.json")
    assert profile.ops["Softmax"].fixed_range == (0.0, 1.0)
    assert profile.ops["Tanh"].fixed_range == (-1.0, 1.0)
    assert "Relu" not in profile.ops


def test_model_inputs_are_float_where_the_file_does_not_name_them(read):
    assert "Input" not in read().ops
    assert not read({"model_input": {}}).ops["Input"].output


def test_supported_kernels_become_precisions():
    old, new = (load_profile(FOLDER / f"htp_{chip}.json") for chip in ("v73", "v81"))
    assert old.precision_names == ("W8A8", "W4A8", "W8A16", "W4A16", "FP16", "FP32")
    assert set(new.precisions) == {"W8A16", "W4A16", "W8FP16", "FP16"}
    assert old.allowed("Resize") == ("W8A8", "W4A8", "FP32")
    assert new.precisions["W8A16"].activation.bits == 16
    assert new.precisions["W8FP16"].activation.is_half
    assert old.precisions["FP16"].bias == "half"
    assert "V73" in old.description


def test_an_operation_without_the_default_kernel_gets_the_first_it_has(read):
    profile = read({
        "defaults/supported_kernels": [kernel(8, 8), kernel(16, 8), kernel(16, 16, "float")],
        "op_type/Softmax": {"supported_kernels": [kernel(16, dtype="float"), kernel(16)]},
    })  # fmt: skip
    assert profile.allowed("Softmax") == ("W8A16", "FP16", "FP32")


def test_without_an_8_bit_kernel_the_first_integer_one_is_the_own(read):
    section = [kernel(16, 16, "float"), kernel(16, 4), kernel(16, 8)]
    assert read({"defaults/supported_kernels": section}).own.name == "W4A16"
    half = [kernel(32, 32, "float"), kernel(16, 16, "float")]
    assert read({"defaults/supported_kernels": half}).own.name == "FP16"


CONFLICTS = {
    "range of a float output": (
        {"op_type/Softmax": {"is_output_quantized": "False",
                             "encoding_constraints": {"min": 0, "max": 1}}},
        ("op_type/Softmax/is_output_quantized", "op_type/Softmax/encoding_constraints")),
    "no kernel in common": (
        {"defaults/supported_kernels": [kernel(8, 8)],
         "op_type/Add": {"supported_kernels": [kernel(16)]}},
        ("op_type/Add/supported_kernels", "defaults/supported_kernels")),
    "two names of one layer": (
        {"op_type/Gemm": {"is_symmetric": "True"}, "op_type/MatMul": {"is_symmetric": "False"}},
        ("op_type/MatMul/is_symmetric", "op_type/Gemm/is_symmetric")),
    "two names of one pool": (
        {"op_type/GlobalAveragePool": {"is_output_quantized": "True"},
         "op_type/ReduceMean": {"is_output_quantized": "False"}},
        ("op_type/ReduceMean/is_output", "op_type/GlobalAveragePool/is_output")),
    "range inside a supergroup": (
        {"op_type/Add": {"encoding_constraints": {"min": -1, "max": 1}}},
        ("op_type/Add/encoding_constraints", "supergroups/3")),
    "two ways to be symmetric": (
        {"defaults/strict_symmetric": "True", "defaults/unsigned_symmetric": "True"},
        ("defaults/strict_symmetric", "defaults/unsigned_symmetric")),
    "a bias of its own": (
        {"op_type/Conv": {"params": {"bias": {"is_quantized": "True"}}}},
        ("op_type/Conv/params/bias/is_quantized", "params/bias/is_quantized")),
    "an input that may be float": (
        {"op_type/Conv": {"is_input_quantized": "True"}},
        ("op_type/Conv/is_input_quantized", "is_output_quantized")),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFLICTS)
def test_a_conflict_names_both_rules(read, case):
    changes, places = CONFLICTS[case]
    with pytest.raises(ProfileError, match=r"conflict|in common") as caught:
        read(changes)
    assert "mine.json" in str(caught.value)
    for place in places:
        assert place in str(caught.value)


WRONG = {
    "unknown section": ({"layers": {}}, "layers"),
    "unknown default": ({"defaults/speed": 1}, "at defaults.*speed"),
    "unknown op setting": ({"op_type/Conv": {"bits": 8}}, "op_type/Conv.*bits"),
    "text for a boolean": ({"defaults/per_channel_quantization": "yes"}, "per_channel.*yes"),
    "number for a boolean": ({"defaults/per_channel_quantization": 1.5}, "per_channel.*1.5"),
    "section of another kind": ({"supergroups": {}}, "at supergroups"),
    "supergroup of one": ({"supergroups": [{"op_list": ["Conv"]}]}, "supergroups/0/op_list"),
    "odd width": ({"defaults/supported_kernels": [kernel(8, 7)]}, "kernels/0/param/bitwidth"),
    "kernel without weights": ({"defaults/supported_kernels": [kernel(8)]}, "'param' is"),
    "float of 8 bits": ({"defaults/supported_kernels": [kernel(8, 8, "float")]}, "/0.*float"),
    "integers of 32 bits": ({"defaults/supported_kernels": [kernel(32, 8)]}, "kernels/0.*32 bits"),
    "half weights of integers": (
        {"defaults/supported_kernels": [{**kernel(16, 16, "float"), **kernel(8)}]},
        "kernels/0.*FP16 weights need FP16"),
    "only float": ({"defaults/supported_kernels": [kernel(32, 32, "float")]}, "neither an integer"),
    "constraint without min": ({"op_type/Add": {"encoding_constraints": {"max": 1}}}, "'min'"),
    "min alone": ({"op_type/Mul": {"encoding_constraints": {"min": -1}}}, "Mul.*min alone"),
    "min alone above 0": ({"op_type/Relu": {"encoding_constraints": {"min": 1}}}, "Relu.*min"),
    "range without 0": (
        {"op_type/Mul": {"encoding_constraints": {"min": 1, "max": 2}}}, "contains 0"),
    "inputs by default": ({"defaults/ops/is_input_quantized": "True"}, "defaults/ops/is_input"),
    "no outputs by default": ({"defaults/ops/is_output_quantized": "False"}, "defaults/ops/is_out"),
    "nothing by default": ({"defaults/ops": {}}, "defaults/ops/is_output_quantized"),
    "no input of an op": ({"op_type/Add": {"is_input_quantized": "False"}}, "op_type/Add/is_input"),
    "no model input": ({"model_input": {"is_input_quantized": "False"}}, "model_input/is_input"),
    "no model output": ({"model_output": {"is_output_quantized": False}}, "model_output/is_out"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_aimet_does_not_know_or_refuses_is_refused_with_the_place(read, case):
    changes, place = WRONG[case]
    with pytest.raises(ProfileError, match=rf"mine\.json.*{place}"):
        read(changes)


@pytest.mark.parametrize("section", ["defaults", "params", "op_type", "supergroups",
                                     "model_input", "model_output"])  # fmt: skip
def test_a_missing_section_is_named(tmp_path, section):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({k: v for k, v in DEFAULT.items() if k != section}), "utf-8")
    with pytest.raises(ProfileError, match=f"AIMET configuration.*'{section}' is a required"):
        load_profile(path)


@pytest.mark.parametrize("groups", [
    [{"op_list": ["Conv"] * 6}] * 200,
    [{"op_list": ["Conv"] * 100_000}],
    [{"op_list": ["Conv", "Relu"]}] * 10_000,
])  # fmt: skip
def test_supergroups_beyond_measure_are_refused_at_once(read, groups):
    with pytest.raises(ProfileError, match="supergroups"):
        read({"supergroups": groups})


def test_a_file_name_becomes_a_name_of_a_profile(read):
    assert read(name="HTP quantsim (V73).json").name == "htp_quantsim_v73"
    assert read(name="配置.json").name == "aimet"
