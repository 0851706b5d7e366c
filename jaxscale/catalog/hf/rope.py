"""Rotary embedding of a `config.json`, in the spelling of transformers 4 or 5."""

from typing import Any

from jaxscale.catalog.hf.fields import LIMITS, Fields
from jaxscale.catalog.strict import describe
from jaxscale.errors import SpecError
from jaxscale.types import RopeShape

_ROPE_TYPES = {name: name for name in ("linear", "dynamic", "yarn", "llama3", "longrope")} | {
    "default": "none",
    "su": "longrope",
}


def rope_shape(
    config: Fields,
    *,
    default_theta: float = 10_000.0,
    default_local_theta: float = 0.0,
    fraction: float = 1.0,
    interleaved: bool = False,
) -> RopeShape:
    """Rotary embedding from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (transformers 4).

    Either may be split by kind of layer (`full_attention`, `sliding_attention`), as Gemma 3 does.
    """
    stretch = config.nested("rope_parameters") or config.nested("rope_scaling") or Fields(values={}, where=config.where)
    local = stretch.nested("sliding_attention")
    stretch = stretch.nested("full_attention") or stretch
    theta = config.number("rope_theta", "rotary_emb_base", default=default_theta, minimum=1.0)
    theta = stretch.number("rope_theta", default=theta, minimum=1.0)
    share = config.number("partial_rotary_factor", "rotary_pct", default=fraction, minimum=1e-3, maximum=1.0)
    share = stretch.number("partial_rotary_factor", default=share, minimum=1e-3, maximum=1.0)
    local_theta = config.number("rope_local_base_freq", default=default_local_theta)
    if local is not None:
        local.refuse("rope_type", ["default"], "the rotary embedding of windowed layers is not stretched here")
        local_theta = local.number("rope_theta", default=local_theta)
    scaling = _scaling(config, stretch)
    same = local_theta == theta and not scaling
    return RopeShape(
        theta=theta, local_theta=0.0 if same else local_theta, fraction=share, interleaved=interleaved, **scaling
    )


def _scaling(config: Fields, stretch: Fields) -> dict[str, Any]:
    """How positions are stretched: the fields of `RopeShape` that depend on the kind of scaling."""
    kind = stretch.choice("rope_type", "type", allowed=_ROPE_TYPES, default="default")
    if kind == "none":
        return {}
    if kind == "yarn" and config.values.get("model_type") == "phi3":
        kind = "longrope"  # as transformers reads old Phi-3 files
    if kind == "linear":
        return {"scaling": kind, "factor": stretch.number("factor", minimum=1.0)}
    longest = config.count("max_position_embeddings", limit="tokens", default=2048)
    # Dynamic scaling counts from the longest context, whatever is said of the first one (transformers, rope utilities).
    original = longest if kind == "dynamic" else _original_length(config, stretch, longest)
    made: dict[str, Any] = {"scaling": kind, "original_max_seq_len": original}
    if kind == "longrope":
        factor = stretch.number("factor", default=max(1.0, longest / original), minimum=1.0)
        factors = {f"{name}_factors": _factors(stretch, f"{name}_factor") for name in ("short", "long")}
        return made | factors | {"factor": factor, "attention_factor": stretch.number("attention_factor", default=0.0)}
    made["factor"] = stretch.number("factor", minimum=1.0)
    if kind == "llama3":
        made |= {name: stretch.number(name, minimum=1e-3) for name in ("low_freq_factor", "high_freq_factor")}
    if kind == "yarn":
        defaults = {"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.0, "mscale_all_dim": 0.0, "attention_factor": 0.0}
        made |= {name: stretch.number(name, default=value) for name, value in defaults.items()}
        made["truncate"] = stretch.flag("truncate", default=True)
    return made


def _original_length(config: Fields, stretch: Fields, longest: int) -> int:
    """The context that the model was first trained on; Phi-3 states it outside the scaling section."""
    name = "original_max_position_embeddings"
    holder = stretch if stretch.values.get(name) is not None else config
    return holder.count(name, limit="tokens", default=longest)


def _factors(stretch: Fields, name: str) -> tuple[float, ...]:
    values = stretch.raw(name)
    if not isinstance(values, list) or not values or len(values) > LIMITS["width"]:
        raise SpecError(f"{stretch.where}: {name} must be a list of numbers, got {describe(values)}")
    return tuple(
        Fields(values={f"{name}[{i}]": value}, where=stretch.where).number(f"{name}[{i}]", minimum=1e-6)
        for i, value in enumerate(values)
    )
