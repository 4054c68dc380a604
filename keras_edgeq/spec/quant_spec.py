"""`QuantSpec`: the grid asked for, before any data is seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.nearest import did_you_mean

RULES = (
    "minmax", "mse", "percentile", "sqnr", "entropy", "octav", "moving_average", "derived",
)  # fmt: skip
DTYPES = ("int", "float")
MOST_IN_BLOCK = 65_536


@dataclass(frozen=True)
class QuantSpec:
    """Describes a quantization grid and how its range is found.

    Args:
        bits: integer width, 2 to 16; 32 or 64 for a bias whose grid is `"derived"`.
        symmetric: zero point 0 on a signed grid.
        signed: signedness of the stored integers. None lets the data decide: unsigned when no
            value is negative (AIMET's unsigned symmetric).
        narrow_range: leave out the most negative integer (TFLite weights: -127..127).
        axes: channel axes that own a scale each; empty is one scale per tensor.
        block_size: how many elements of a channel, along the one other axis, share a scale; 0 is
            all of them. The last block may be shorter.
        block_bits: 0 gives each block a scale of its own. Otherwise a channel owns the scale, and
            each block a whole multiple of it, 1 to `2 ** block_bits` (AIMET's LPBQ).
        fixed_range: `(low, high)` that no data changes, such as a softmax output.
        rule: how the range is chosen, one of `RULES` (`numerics.range_rules`); `"derived"` marks a
            bias, whose scale is input scale times weight scale.
        percentile: share of the values that `"percentile"` keeps inside, in percent.
        dtype: `"int"`, or `"float"` for IEEE half precision: 16 bits, a cast there and back.

    Example:
        >>> eq.QuantSpec(bits=4, symmetric=True, axes=(3,)).to_json()
        {'bits': 4, 'symmetric': True, 'axes': [3]}
    """

    bits: int = 8
    symmetric: bool = False
    signed: bool | None = True
    narrow_range: bool = False
    axes: tuple[int, ...] = ()
    block_size: int = 0
    block_bits: int = 0
    fixed_range: tuple[float, float] | None = None
    rule: str = "minmax"
    percentile: float = 99.99
    dtype: str = "int"

    def __post_init__(self):
        derived = self.rule == "derived"
        if not (self.bits in (32, 64) if derived else 2 <= self.bits <= 16):
            raise ProfileError(
                f"bits is {self.bits}; integer grids have 2 to 16 bits, a derived bias 32 or 64."
            )
        if self.dtype not in DTYPES or (self.is_half and (self.bits != 16 or derived)):
            raise ProfileError(
                f"A grid of dtype {self.dtype!r} with {self.bits} bits does not exist; "
                'dtype is "int", or "float" with 16 bits.'
            )
        if self.rule not in RULES:
            raise ProfileError(
                f"Range rule {self.rule!r} is not one of {RULES}." + did_you_mean(self.rule, RULES)
            )
        if not 50.0 < self.percentile <= 100.0:
            raise ProfileError(f"percentile is {self.percentile}; it must lie in (50, 100].")
        if self.narrow_range and self.signed is not True:
            raise ProfileError("narrow_range needs signed=True.")
        self._check_blocks()
        object.__setattr__(self, "axes", tuple(self.axes))
        if self.fixed_range is not None:
            low, high = self.fixed_range
            if not low <= 0.0 <= high or low == high:
                raise ProfileError(
                    f"fixed_range {self.fixed_range} must contain 0 and not be empty."
                )
            object.__setattr__(self, "fixed_range", (float(low), float(high)))

    def _check_blocks(self) -> None:
        if not (self.block_size or self.block_bits):
            return
        if not 2 <= self.block_size <= MOST_IN_BLOCK:
            raise ProfileError(
                f"block_size is {self.block_size}; blocks have 2 to {MOST_IN_BLOCK} elements."
            )
        if not self.symmetric or self.signed is not True or self.is_half:
            raise ProfileError("A grid with blocks has dtype int, symmetric=True and signed=True.")
        if self.block_bits < 0 or (self.block_bits and self.bits + self.block_bits > 8):
            raise ProfileError(
                f"block_bits is {self.block_bits} with {self.bits} bits; together they are at most "
                "8, which is what a kernel multiplies."
            )

    @property
    def scales_blocks(self) -> bool:
        """Tell whether each block owns a scale, which no whole number of another replaces."""
        return bool(self.block_size) and not self.block_bits

    @property
    def is_half(self) -> bool:
        """Tell whether this is half precision, and no integer grid."""
        return self.dtype == "float"

    @property
    def type_name(self) -> str:
        """How its numbers are stored: `int8`, `uint8`, `float16`; `int8` where data decide."""
        if self.is_half:
            return f"float{self.bits}"
        return f"{'u' if self.signed is False else ''}int{self.bits}"

    @property
    def kind(self) -> str:
        """What kind of grid it is, in words."""
        if self.is_half:
            return ""
        words = "symmetric" if self.symmetric else "asymmetric"
        if self.block_size:
            return f"{words}, per block of {self.block_size}"
        return f"{words}, per channel" if self.axes else words

    @property
    def range_rule(self) -> str:
        """How the range is chosen, in words."""
        if self.is_half:
            return ""
        if self.fixed_range is not None:
            return f"{self.fixed_range[0]:g} to {self.fixed_range[1]:g}"
        return f"percentile {self.percentile:g}" if self.rule == "percentile" else self.rule

    def to_json(self) -> dict:
        """Return the fields as JSON values, without those at their default."""
        defaults = {f.name: f.default for f in fields(self)}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value != defaults[key]
        }

    @classmethod
    def from_json(cls, data: dict) -> QuantSpec:
        """Read `to_json` output; an unknown field is an error that names the allowed ones."""
        allowed = {f.name for f in fields(cls)}
        unknown = set(data) - allowed
        if unknown:
            raise ProfileError(
                f"Unknown QuantSpec fields {sorted(unknown)}; allowed: {sorted(allowed)}."
                + did_you_mean(min(unknown), allowed)
            )
        ready: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**ready)


HALF = QuantSpec(bits=16, dtype="float")
BIAS_SPEC = QuantSpec(bits=32, symmetric=True, rule="derived")
WIDE_BIAS_SPEC = QuantSpec(bits=64, symmetric=True, rule="derived")
