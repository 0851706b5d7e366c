"""What is trained: the shape of a decoder-only transformer, dense or mixture of experts.

A `ModelShape` holds numbers and choices only. It is what the cost model counts, what the zoo builds and what a
Hugging Face `config.json` is translated into; nothing else about a model exists in jaxscale.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from jaxscale.errors import SpecError
from jaxscale.types._check import require_choice, require_positive, require_positive_int

# gelu is exact and gelu_tanh its approximation; of the gated ones geglu is the approximation, geglu_erf exact
Mlp = Literal["swiglu", "geglu", "geglu_erf", "gelu", "gelu_tanh", "relu", "relu2"]
Norm = Literal["rmsnorm", "layernorm"]
NormPlacement = Literal["pre", "post", "sandwich"]
QkNorm = Literal["none", "head", "full"]
Positions = Literal["rope", "learned", "alibi", "none"]
RopeScaling = Literal["none", "linear", "dynamic", "yarn", "llama3", "longrope"]
Router = Literal["softmax", "sigmoid"]

GATED_MLPS = ("swiglu", "geglu", "geglu_erf")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEShape:
    """The sparse feed-forward of a mixture of experts.

    `num_leading_dense_layers` layers come first and are dense; after them every `layer_interval`-th layer is sparse.
    Shared experts see every token: together they are one dense MLP of width
    `num_shared_experts * shared_expert_d_ff`.
    """

    num_experts: int
    experts_per_token: int
    expert_d_ff: int
    num_shared_experts: int = 0
    shared_expert_d_ff: int = 0
    shared_expert_gate: bool = False  # Qwen2-MoE: a sigmoid gate on the shared expert's output
    num_leading_dense_layers: int = 0
    layer_interval: int = 1
    router: Router = "softmax"
    router_bias: bool = False  # a learned or balanced bias added to the routing scores (DeepSeek-V3, gpt-oss)
    renormalize_top_k: bool = True  # the chosen experts' weights sum to one
    routed_scale: float = 1.0
    num_expert_groups: int = 1
    groups_per_token: int = 1
    expert_bias: bool = False
    router_prototypes: bool = False  # M6-T: experts_per_token routers, each top-1 over its own share of the experts

    def __post_init__(self) -> None:
        require_positive_int(
            "moe",
            num_experts=self.num_experts,
            experts_per_token=self.experts_per_token,
            expert_d_ff=self.expert_d_ff,
            layer_interval=self.layer_interval,
            num_expert_groups=self.num_expert_groups,
            groups_per_token=self.groups_per_token,
        )
        require_positive_int(
            "moe",
            minimum=0,
            num_shared_experts=self.num_shared_experts,
            shared_expert_d_ff=self.shared_expert_d_ff,
            num_leading_dense_layers=self.num_leading_dense_layers,
        )
        require_positive("moe", routed_scale=self.routed_scale)
        require_choice("moe", allowed=get_args(Router), router=self.router)
        if self.experts_per_token > self.num_experts:
            raise SpecError(
                f"moe: experts_per_token={self.experts_per_token} is more than num_experts={self.num_experts}"
            )
        if self.num_shared_experts and not self.shared_expert_d_ff:
            raise SpecError("moe: num_shared_experts is set, so shared_expert_d_ff must be above zero")
        if self.num_experts % self.num_expert_groups or self.groups_per_token > self.num_expert_groups:
            raise SpecError(
                f"moe: num_expert_groups={self.num_expert_groups} must divide num_experts={self.num_experts} "
                f"and be at least groups_per_token={self.groups_per_token}"
            )
        if self.router_prototypes and (self.num_experts % self.experts_per_token or self.router != "softmax"):
            raise SpecError(
                f"moe: router_prototypes needs router='softmax' and experts_per_token={self.experts_per_token} "
                f"to divide num_experts={self.num_experts}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MLAShape:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    `q_lora_rank=0` means that queries are projected directly from the model dimension.
    """

    kv_lora_rank: int
    q_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    def __post_init__(self) -> None:
        require_positive_int(
            "mla",
            kv_lora_rank=self.kv_lora_rank,
            qk_nope_head_dim=self.qk_nope_head_dim,
            qk_rope_head_dim=self.qk_rope_head_dim,
            v_head_dim=self.v_head_dim,
        )
        require_positive_int("mla", minimum=0, q_lora_rank=self.q_lora_rank)

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeShape:
    """Rotary position embedding and how it is stretched to longer contexts."""

    theta: float = 10_000.0
    local_theta: float = 0.0  # theta of sliding-window layers where it differs (Gemma 3); 0 = the same
    fraction: float = 1.0  # share of head_dim that rotates (GPT-NeoX 0.25)
    scaling: RopeScaling = "none"
    factor: float = 1.0
    original_max_seq_len: int = 0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    mscale: float = 0.0  # yarn: 0 = the paper's default attention factor
    mscale_all_dim: float = 0.0
    attention_factor: float = 0.0  # yarn, longrope: 0 = derived
    truncate: bool = True  # yarn: correction range rounded to whole dimensions
    interleaved: bool = False  # pairs are neighbours (DeepSeek) instead of halves (GPT-NeoX style)
    short_factors: tuple[float, ...] = ()  # longrope, one per rotated pair
    long_factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_positive("rope", theta=self.theta, fraction=self.fraction, factor=self.factor)
        require_choice("rope", allowed=get_args(RopeScaling), scaling=self.scaling)
        if self.fraction > 1:
            raise SpecError(f"rope: fraction={self.fraction} must be at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer as numbers and choices.

    Attention pattern: `window=0` is full causal attention everywhere. With `window=w` each layer sees the last `w`
    tokens, except that with `global_interval=g > 0` the layers g-1, 2g-1, ... (counted from 0) see everything
    (Gemma 3: g=6; Gemma 2 and gpt-oss: g=2).
    """

    name: str
    num_layers: int
    d_model: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_ff: int  # width of the dense MLP; of a model whose layers are all sparse it is not used
    vocab_size: int
    family: str = "llama"
    mlp: Mlp = "swiglu"
    tied_embeddings: bool = False
    moe: MoEShape | None = None
    mla: MLAShape | None = None
    window: int = 0
    global_interval: int = 0
    norm: Norm = "rmsnorm"
    norm_placement: NormPlacement = "pre"
    norm_epsilon: float = 1e-6
    norm_scale: bool = True  # False: norms have no parameters at all (OLMo 1)
    norm_bias: bool = False  # layernorm only
    norm_unit_offset: bool = False  # weight stored as (1 + w), Gemma
    qk_norm: QkNorm = "none"  # per head (Qwen3, Gemma 3) or over all heads at once (OLMo 2)
    qkv_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    parallel_block: bool = False  # attention and MLP read the same input (GPT-NeoX)
    parallel_shared_norm: bool = False  # the two branches also share one norm (GPT-J, Cohere)
    positions: Positions = "rope"
    rope: RopeShape = field(default_factory=RopeShape)
    max_seq_len: int = 0  # rows of a learned position table; 0 where positions are not learned
    attention_scale: float = 0.0  # 0 = 1/sqrt(width of a query head)
    attention_softcap: float = 0.0
    attention_sinks: bool = False  # one learned logit a head in the softmax (gpt-oss)
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0  # Gemma: sqrt(d_model)
    qkv_clip: float = 0.0  # MPT, OLMo: clamp of q, k, v
    swiglu_limit: float = 0.0  # gpt-oss: clamp inside its gated unit; 0 = plain SwiGLU
    source: str = ""

    def __post_init__(self) -> None:
        owner = f"model {self.name!r}"
        require_positive_int(
            owner,
            num_layers=self.num_layers,
            d_model=self.d_model,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            d_ff=self.d_ff,
            vocab_size=self.vocab_size,
        )
        require_positive_int(
            owner, minimum=0, window=self.window, global_interval=self.global_interval, max_seq_len=self.max_seq_len
        )
        require_choice(owner, allowed=get_args(Mlp), mlp=self.mlp)
        require_choice(owner, allowed=get_args(Norm), norm=self.norm)
        require_choice(owner, allowed=get_args(NormPlacement), norm_placement=self.norm_placement)
        require_choice(owner, allowed=get_args(QkNorm), qk_norm=self.qk_norm)
        require_choice(owner, allowed=get_args(Positions), positions=self.positions)
        if self.num_heads % self.num_kv_heads:
            raise SpecError(f"{owner}: num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}")
        if self.mla and self.positions != "rope":
            raise SpecError(f"{owner}: positions={self.positions!r}, but mla rotates a part of each head: use 'rope'")
        self._refuse_what_nothing_reads(owner)
        if self.positions == "learned" and not self.max_seq_len:
            raise SpecError(f"{owner}: learned positions need max_seq_len above zero")
        if self.global_interval and not self.window:
            raise SpecError(f"{owner}: global_interval={self.global_interval} needs a window above zero")
        if self.moe and self.moe.num_leading_dense_layers > self.num_layers:
            raise SpecError(f"{owner}: num_leading_dense_layers is more than num_layers={self.num_layers}")

    def _refuse_what_nothing_reads(self, owner: str) -> None:
        """Fields that a model of this kind has no place for are mistakes: its layers would leave them out."""
        absent = {"qkv_bias": False, "attention_out_bias": False, "attention_sinks": False, "qkv_clip": 0.0}
        absent["qk_norm"] = "none"
        wrong = next((name for name, value in absent.items() if getattr(self, name) != value), None)
        if self.mla and wrong:
            raise SpecError(f"{owner}: {wrong}={getattr(self, wrong)!r}, but latent attention (mla) has none")
        if self.swiglu_limit and self.mlp != "swiglu":
            raise SpecError(f"{owner}: swiglu_limit={self.swiglu_limit:g} needs mlp='swiglu', got {self.mlp!r}")
        if self.parallel_shared_norm and not self.parallel_block:
            raise SpecError(f"{owner}: parallel_shared_norm needs parallel_block")

    @property
    def rotated_width(self) -> int:
        """How much of a query or key head rotates; 0 without rotary positions."""
        if self.positions != "rope":
            return 0
        return self.mla.qk_rope_head_dim if self.mla else int(self.head_dim * self.rope.fraction)

    @property
    def gated_mlp(self) -> bool:
        """Whether the MLP has a gate matrix beside the up matrix."""
        return self.mlp in GATED_MLPS

    @property
    def num_moe_layers(self) -> int:
        """Layers whose feed-forward is a mixture of experts."""
        return sum(self.is_moe_layer(i) for i in range(self.num_layers))

    @property
    def num_window_layers(self) -> int:
        """Layers whose attention is limited to the window."""
        return sum(self.is_window_layer(i) for i in range(self.num_layers))

    def is_moe_layer(self, index: int) -> bool:
        """Whether layer `index` (from 0) has experts."""
        if self.moe is None or index < self.moe.num_leading_dense_layers:
            return False
        return (index - self.moe.num_leading_dense_layers + 1) % self.moe.layer_interval == 0

    def is_window_layer(self, index: int) -> bool:
        """Whether layer `index` (from 0) attends within the window only."""
        if not self.window:
            return False
        return not (self.global_interval and (index + 1) % self.global_interval == 0)
