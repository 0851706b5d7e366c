"""What a training run chooses beside shape, workload and layout: learning rate, clipping, auxiliary losses."""

from dataclasses import dataclass

from jaxscale.errors import SpecError
from jaxscale.types._check import require_positive, require_positive_int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Hyperparameters of the step. Coefficients at zero leave their term out of the program."""

    learning_rate: float = 3e-4
    warmup_steps: int = 0
    decay_steps: int = 0  # steps until the cosine reaches `final_learning_rate`; 0 = constant after warm-up
    final_learning_rate: float = 0.0
    weight_decay: float = 0.1  # of matrices only
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float = 1.0  # of all gradients together; 0 = no clipping
    z_loss: float = 0.0  # coefficient of log(Z)^2 (PaLM, arXiv 2204.02311, section 5)
    router_aux_loss: float = 0.0  # load balance (Switch, arXiv 2101.03961, eq. 4)
    router_z_loss: float = 0.0  # (ST-MoE, arXiv 2202.08906, eq. 5)
    router_bias_rate: float = 1e-3  # aux-free balancing (arXiv 2408.15664)
    noise_scale: bool = False  # report squared norms of gradients over small batches (arXiv 1812.06162)

    def __post_init__(self) -> None:
        require_positive("options", learning_rate=self.learning_rate, epsilon=self.epsilon)
        non_negative = (
            "final_learning_rate", "weight_decay", "beta1", "beta2", "clip_norm", "z_loss", "router_aux_loss",
            "router_z_loss", "router_bias_rate",
        )  # fmt: skip
        require_positive("options", allow_zero=True, **{name: getattr(self, name) for name in non_negative})
        require_positive_int("options", minimum=0, warmup_steps=self.warmup_steps, decay_steps=self.decay_steps)
        if self.decay_steps and self.decay_steps <= self.warmup_steps:
            raise SpecError(
                f"options: decay_steps={self.decay_steps} must be more than warmup_steps={self.warmup_steps}"
            )
