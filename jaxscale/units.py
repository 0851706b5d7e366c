"""Parse and format quantities: the only place where units are converted.

Inside jaxscale every number is in SI base units (bytes, seconds, FLOP/s, bytes/s, dollars per hour) and its name
ends in the unit. YAML files write quantities as strings with a unit ("459 TFLOP/s", "95 GiB"), because PyYAML reads
`1e12` as a string and a bare number hides its unit.
"""

import math
import re

from jaxscale.errors import SpecError

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_PREFIX = _DECIMAL | _BINARY
_TIME_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "day": 86400.0,
    "days": 86400.0,
}
_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S.*?)?\s*$")

GIB = 2.0**30
GB = 1e9


def parse_quantity(text: object, dimension: str, *, field: str = "value") -> float:
    """Parse `text` into base units of `dimension`, one of bytes, bytes/s, FLOP/s, s, Hz, W, $/h.

    >>> parse_quantity("459 TFLOP/s", "FLOP/s")
    459000000000000.0
    >>> parse_quantity("95 GiB", "bytes")
    102005473280.0
    """
    if not isinstance(text, str):
        raise SpecError(f"{field}={text!r} has no unit; write a quantity such as {_EXAMPLES[dimension]!r}")
    match = _QUANTITY.match(text)
    scale = _unit_scale(match.group(2) or "", dimension) if match else None
    if match is None or scale is None:
        raise SpecError(f"{field}={text!r} is not a quantity in {dimension}; write it like {_EXAMPLES[dimension]!r}")
    value = float(match.group(1)) * scale
    if not math.isfinite(value) or value < 0:
        raise SpecError(f"{field}={text!r} must be a finite number that is not negative")
    return value


_EXAMPLES = {
    "bytes": "95 GiB",
    "bytes/s": "1228 GB/s",
    "FLOP/s": "459 TFLOP/s",
    "s": "1 us",
    "Hz": "1750 MHz",
    "W": "700 W",
    "$/h": "4.2 $/h",
}


def _unit_scale(unit: str, dimension: str) -> float | None:
    """Return how many base units one `unit` is, or None where it does not belong to `dimension`."""
    if dimension == "s":
        return _TIME_S.get(unit)
    suffixes = {
        "bytes": {"B": 1.0},
        "bytes/s": {"B/s": 1.0, "bit/s": 0.125, "b/s": 0.125, "bps": 0.125},
        "FLOP/s": {"FLOP/s": 1.0, "OP/s": 1.0},
        "Hz": {"Hz": 1.0},
        "W": {"W": 1.0},
        "$/h": {"$/h": 1.0},
    }[dimension]
    for suffix, scale in suffixes.items():
        if unit.endswith(suffix) and unit[: -len(suffix)] in _PREFIX:
            return scale * _PREFIX[unit[: -len(suffix)]]
    return None


def parse_count(text: object, *, field: str = "value") -> int:
    """Parse a count of tokens, parameters or sequences: 15000, "15T", "1.5e12", "300B".

    >>> parse_count("15T"), parse_count("1.5e12"), parse_count("4k")
    (15000000000000, 1500000000000, 4000)
    """
    scales = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
    match = _QUANTITY.match(str(text)) if not isinstance(text, bool) else None
    scale = scales.get(match.group(2) or "") if match else None
    value = float(match.group(1)) * scale if match and scale is not None else math.nan
    if not (math.isfinite(value) and value > 0 and value == int(value)):
        raise SpecError(f'{field}={text!r} must be a whole number above zero, such as 4096, "300B" or "1.5e12"')
    return int(value)


def format_bytes(value_bytes: float) -> str:
    """Format memory in binary units.

    >>> format_bytes(95 * 2**30), format_bytes(1536.0)
    ('95.0 GiB', '1.5 KiB')
    """
    for prefix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if abs(value_bytes) >= _BINARY[prefix]:
            return f"{value_bytes / _BINARY[prefix]:.1f} {prefix}B"
    return f"{value_bytes:.0f} B"


def format_seconds(value_s: float) -> str:
    """Format a duration with the unit that leaves one to three digits before the point.

    >>> format_seconds(0.0123), format_seconds(5400.0), format_seconds(3.25)
    ('12.3 ms', '1.5 h', '3.25 s')
    """
    if not math.isfinite(value_s):
        return str(value_s)
    for limit, scale, unit in ((1e-6, 1e-9, "ns"), (1e-3, 1e-6, "us"), (1.0, 1e-3, "ms")):
        if abs(value_s) < limit:
            return f"{value_s / scale:.3g} {unit}"
    for limit, scale, unit in ((120.0, 1.0, "s"), (7200.0 * 0.5, 60.0, "min"), (172800.0, 3600.0, "h")):
        if abs(value_s) < limit:
            return f"{value_s / scale:.3g} {unit}"
    return f"{value_s / 86400.0:.3g} days"


def format_si(value: float, unit: str = "") -> str:
    """Format a count or a rate with a decimal prefix.

    >>> format_si(8.03e9), format_si(459e12, "FLOP/s")
    ('8.03 G', '459 TFLOP/s')
    """
    for prefix in ("E", "P", "T", "G", "M", "k"):
        if abs(value) >= _DECIMAL[prefix]:
            return f"{value / _DECIMAL[prefix]:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def format_dollars(value: float) -> str:
    """Format money.

    >>> format_dollars(1234.5), format_dollars(2.5e6)
    ('$1,234', '$2.50M')
    """
    if value >= 1e6:
        return f"${value / 1e6:,.2f}M"
    return f"${value:,.0f}" if value >= 100 else f"${value:,.2f}"
