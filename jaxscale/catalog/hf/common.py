"""What families share: sizes, biases, attention windows, norms."""

from typing import Any

from jaxscale.catalog.hf.fields import Fields
from jaxscale.catalog.hf.rope import rope_shape
from jaxscale.errors import SpecError

GATED = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu_erf", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}


def sizes(c: Fields, **defaults: int) -> dict[str, Any]:
    """The sizes that every Llama-like family spells the same."""
    d_model = c.count("hidden_size", limit="width")
    heads = c.count("num_attention_heads", limit="heads", **_default(defaults, "num_attention_heads"))
    kv_heads = c.count("num_key_value_heads", limit="heads", default=defaults.get("num_key_value_heads", heads))
    head_dim = c.raw("head_dim", default=defaults.get("head_dim"))
    if head_dim is None:
        head_dim = head_width(c, "hidden_size", d_model, "num_attention_heads", heads)
    return {
        "num_layers": c.count("num_hidden_layers", limit="layers"),
        "d_model": d_model,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": c.count("head_dim", limit="width", default=head_dim),
        "d_ff": c.count("intermediate_size", limit="width"),
        "vocab_size": c.count("vocab_size", limit="vocabulary", **_default(defaults, "vocab_size")),
    }


def head_width(c: Fields, width_name: str, d_model: int, heads_name: str, heads: int) -> int:
    """Width of one head where the heads share d_model out; the names are those of the config's fields."""
    if d_model % heads:
        raise SpecError(f"{c.where}: {width_name}={d_model} is not a multiple of {heads_name}={heads}")
    return d_model // heads


def _default(defaults: dict[str, int], name: str) -> dict[str, int]:
    return {"default": defaults[name]} if name in defaults else {}


def llama_like(
    c: Fields, *, tied: bool = False, epsilon: float = 1e-6, theta: float = 10_000.0, **defaults: int
) -> dict[str, Any]:
    """Sizes, gated MLP, RMSNorm and rotary positions; keywords are the defaults of the family."""
    return sizes(c, **defaults) | {
        "mlp": c.choice("hidden_act", "hidden_activation", allowed=GATED, default="silu"),
        "tied_embeddings": c.flag("tie_word_embeddings", default=tied),
        "norm_epsilon": c.number("rms_norm_eps", default=epsilon, maximum=1.0),
        "rope": rope_shape(c, default_theta=theta),
    }


def biases(c: Fields, *, default: bool = False) -> dict[str, bool]:
    """`attention_bias` puts a bias on all four projections."""
    bias = c.flag("attention_bias", default=default)
    return {"qkv_bias": bias, "attention_out_bias": bias}


def window_pattern(c: Fields, num_layers: int, *, interval: int = 0, default: int = 0) -> dict[str, int]:
    """Window and interval of full layers, from `layer_types` where given; `interval` is the family's own pattern."""
    window = 0 if c.is_null("sliding_window") else c.count("sliding_window", limit="tokens", default=default, minimum=0)
    types = c.raw("layer_types", default=None)
    if types is not None:
        interval = _interval(c, types, num_layers)
        if interval == 1:
            return {}
    longest = c.count("max_position_embeddings", limit="tokens", default=2**31)
    if not window or window >= longest:
        return {}
    return {"window": window, "global_interval": interval}


def _interval(c: Fields, types: object, num_layers: int) -> int:
    """The g of "every g-th layer is full": 0 = none is, 1 = all are."""
    if not isinstance(types, list) or len(types) != num_layers:
        raise SpecError(f"{c.where}: layer_types must list one kind for each of the {num_layers} layers")
    unknown = set(map(str, types)) - {"full_attention", "sliding_attention"}
    if unknown:
        raise SpecError(f"{c.where}: layer_types has {min(unknown)!r}; known: full_attention, sliding_attention")
    full = [kind == "full_attention" for kind in types]
    interval = full.index(True) + 1 if any(full) else 0
    if any(is_full != (bool(interval) and (i + 1) % interval == 0) for i, is_full in enumerate(full)):
        raise SpecError(f"{c.where}: layer_types must repeat one pattern that ends in its only full_attention layer")
    return interval


def qwen_window(c: Fields, num_layers: int) -> dict[str, int]:
    """Qwen windows the layers from `max_window_layers` on, if it windows at all, unless `layer_types` names them."""
    if not c.flag("use_sliding_window", default=False):
        return {}
    first = c.count("max_window_layers", limit="layers", default=0, minimum=0)
    if c.values.get("layer_types") is None and first:
        if first < num_layers:
            raise SpecError(
                f"{c.where}: max_window_layers={first} windows some last layers only, which is not supported"
            )
        return {}
    return window_pattern(c, num_layers)


def layernorm(c: Fields, epsilon_name: str, *, biases: bool = True) -> dict[str, Any]:
    """LayerNorm, and biases everywhere or nowhere."""
    names = ("norm_bias", "qkv_bias", "attention_out_bias", "mlp_bias")
    epsilon = c.number(epsilon_name, default=1e-5, maximum=1.0)
    return {"norm": "layernorm", "norm_epsilon": epsilon, **dict.fromkeys(names, biases)}
