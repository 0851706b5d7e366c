"""Remat policies: which named activations of a layer survive until its backward pass, and where they wait.

Besides the named policies a layout can bring its own, `remat=save:attention+mlp_up+q@host`: the ops whose outputs are
kept, joined by `+`; `@host` sends one to host memory, and `input@host` the layer's input.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from jaxscale.errors import LayoutError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class RematPolicy:
    """Which named activations of a layer survive until its backward pass; the rest is recomputed.

    `saved` and `offloaded` are op names of the inventory (and the `checkpoint_name`s of the zoo). The input of a layer
    is always saved. `offloaded` ones wait in host memory.
    """

    name: str
    saved: frozenset[str]
    offloaded: frozenset[str] = frozenset()
    offload_layer_input: bool = False


_ATTENTION_OPS = frozenset({"q", "k", "v", "q_down", "kv_down", "q_proj", "k_proj", "attention"})
_MATMUL_OPS = _ATTENTION_OPS | {
    "attention_out",
    "mlp_gate",
    "mlp_up",
    "mlp_down",
    "shared_gate",
    "shared_up",
    "shared_down",
    "router",
    "expert_gate",
    "expert_up",
    "expert_down",
    "dispatch",
    "combine",
}
_ELEMENTWISE_OPS = frozenset(
    {
        "attention_norm",
        "mlp_norm",
        "attention_residual",
        "mlp_act",
        "expert_act",
        "shared_act",
        "attention_post_norm",
        "mlp_post_norm",
    }
)

REMAT_POLICIES: dict[str, RematPolicy] = {
    p.name: p
    for p in (
        RematPolicy(name="none", saved=_MATMUL_OPS | _ELEMENTWISE_OPS),
        RematPolicy(name="dots", saved=_MATMUL_OPS),
        RematPolicy(name="attention", saved=_ATTENTION_OPS),
        RematPolicy(name="flash", saved=frozenset({"attention"})),
        RematPolicy(name="full", saved=frozenset()),
        RematPolicy(name="offload_attention", saved=frozenset(), offloaded=_ATTENTION_OPS),
        RematPolicy(name="offload_inputs", saved=frozenset(), offload_layer_input=True),
    )
}
REMATS: tuple[str, ...] = tuple(REMAT_POLICIES)
_OWN = "save:"
_ON_HOST = "@host"
_INPUT = "input"


def saveable_ops() -> frozenset[str]:
    """Ops whose output a policy may keep."""
    return _MATMUL_OPS | _ELEMENTWISE_OPS


def own_remat(saved: Iterable[str], offloaded: Iterable[str] = (), *, offload_layer_input: bool = False) -> str:
    """The name of a policy by its ops, as a layout reads it.

    >>> own_remat({"attention", "mlp_up"}, {"q"})
    'save:attention+mlp_up+q@host'
    """
    on_host = [f"{op}{_ON_HOST}" for op in sorted(offloaded)] + [f"{_INPUT}{_ON_HOST}"] * offload_layer_input
    return _OWN + "+".join([*sorted(saved), *on_host])


def remat_policy(name: str) -> RematPolicy:
    """A policy by its name or by the ops that it keeps; raises LayoutError for a policy or an op that is unknown."""
    if name in REMAT_POLICIES:
        return REMAT_POLICIES[name]
    if not name.startswith(_OWN):
        known = ", ".join(REMATS)
        raise LayoutError(f"layout: remat={name!r} is not one of {known}, or {_OWN}OP+OP@host.{nearest(name, REMATS)}")
    kept = {part.strip() for part in name.removeprefix(_OWN).split("+") if part.strip()}
    offloaded = {op.removesuffix(_ON_HOST) for op in kept if op.endswith(_ON_HOST)}
    saved = {op for op in kept if not op.endswith(_ON_HOST)}
    known = saveable_ops()
    for op in sorted((saved | offloaded) - known - {_INPUT}):
        raise LayoutError(f"layout: remat={name!r}: no op is called {op!r}; known: {', '.join(sorted(known))}")
    for op in sorted(saved & offloaded):
        raise LayoutError(f"layout: remat={name!r}: {op} is kept both on the device and on the host")
    inputs = _INPUT in offloaded  # on the device a layer's input is kept anyway
    saved, offloaded = saved - {_INPUT}, offloaded - {_INPUT}
    policy = RematPolicy(
        name=own_remat(saved, offloaded, offload_layer_input=inputs),
        saved=frozenset(saved),
        offloaded=frozenset(offloaded),
        offload_layer_input=inputs,
    )
    same = (named for named in REMAT_POLICIES.values() if replace(named, name=policy.name) == policy)
    return next(same, policy)
