"""How it is trained: sequence length, batch, number formats and optimizer."""

from dataclasses import dataclass

from jaxscale.errors import SpecError, nearest
from jaxscale.types._check import require_positive, require_positive_int


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Bytes of every number in the step. Keys of `Chip.peak_flops_per_s` name the matmul format.

    Master weights (`master_bytes`) are the ones the optimizer updates. Where the optimizer state is sharded over more
    devices than the parameters (ZeRO-1, ZeRO-2), the master copy lives with the optimizer state and the weights to
    compute with are of `compute_bytes`; where both are sharded alike there is one copy of `master_bytes`.
    """

    name: str
    compute_bytes: int  # activations and gathered parameters
    master_bytes: int  # one stored parameter
    grad_bytes: int  # one accumulated gradient
    reduce_bytes: int  # one gradient element on the wire
    matmul: str  # bf16, fp8, fp32


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision(name="bf16", compute_bytes=2, master_bytes=4, grad_bytes=4, reduce_bytes=2, matmul="bf16"),
        Precision(name="fp16", compute_bytes=2, master_bytes=4, grad_bytes=4, reduce_bytes=2, matmul="bf16"),
        Precision(name="fp8", compute_bytes=2, master_bytes=4, grad_bytes=4, reduce_bytes=2, matmul="fp8"),
        Precision(name="bf16_pure", compute_bytes=2, master_bytes=2, grad_bytes=2, reduce_bytes=2, matmul="bf16"),
        Precision(name="fp32", compute_bytes=4, master_bytes=4, grad_bytes=4, reduce_bytes=4, matmul="fp32"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer as the memory and time it costs.

    `state_bytes` is per parameter, in float32, for state shaped like the parameter; factored state (Adafactor) is
    counted per row and column of each matrix.
    """

    name: str
    state_bytes: int
    factored: bool = False
    flops_per_param: int = 12


OPTIMIZERS: dict[str, Optimizer] = {
    o.name: o
    for o in (
        Optimizer(name="adamw", state_bytes=8),
        Optimizer(name="lion", state_bytes=4, flops_per_param=8),
        Optimizer(name="muon", state_bytes=4, flops_per_param=12),
        Optimizer(name="sgd", state_bytes=4, flops_per_param=4),
        Optimizer(name="adafactor", state_bytes=0, factored=True),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One training step's data: `global_batch_size` sequences of `seq_len` tokens."""

    seq_len: int
    global_batch_size: int
    precision: Precision = PRECISIONS["bf16"]
    optimizer: Optimizer = OPTIMIZERS["adamw"]
    training_tokens: int | None = None
    capacity_factor: float = 1.25  # MoE: expert buffers over the mean load; 0 = dropless

    def __post_init__(self) -> None:
        require_positive_int("workload", seq_len=self.seq_len, global_batch_size=self.global_batch_size)
        require_positive("workload", allow_zero=True, capacity_factor=self.capacity_factor)
        if self.training_tokens is not None:
            require_positive_int("workload", training_tokens=self.training_tokens)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step sees."""
        return self.seq_len * self.global_batch_size


def precision_named(name: str) -> Precision:
    """Look a precision up by name."""
    if name not in PRECISIONS:
        raise SpecError(
            f"precision={name!r} is not one of {', '.join(PRECISIONS)}.{nearest(name, PRECISIONS, count=1)}"
        )
    return PRECISIONS[name]


def optimizer_named(name: str) -> Optimizer:
    """Look an optimizer up by name."""
    if name not in OPTIMIZERS:
        raise SpecError(
            f"optimizer={name!r} is not one of {', '.join(OPTIMIZERS)}.{nearest(name, OPTIMIZERS, count=1)}"
        )
    return OPTIMIZERS[name]
