"""Registry entries of the dense allocation laws; the formulas and constants are in `dense`."""

from typing import Any

from jaxscale.plan.law import Law, Number
from jaxscale.plan.laws.dense import (
    BESIROGLU,
    GADRE,
    GEMSTONES_HOT,
    HOFFMANN_A1,
    HOFFMANN_A2,
    HOFFMANN_A3,
    HOFFMANN_A3_ROUNDED,
    OLMO_LADDER_C4,
    PORIAN_TUNED,
    Additive,
    besiroglu_interval,
    cerebras_pile_loss,
    deepseek_optimum,
    gemstones_optimum,
    llama3_optimum,
    minicpm_tokens_per_param,
)


def _additive(law: Additive) -> dict[str, Any]:
    return {"loss": lambda p: law.loss(p.total, p.tokens), "allocation": law.optimum}


def _deepseek_optimum(flops: Number) -> tuple[Number, Number]:
    scale, tokens = deepseek_optimum(flops)
    return scale / 6.0, tokens


def _minicpm_optimum(flops: Number) -> tuple[Number, Number]:
    ratio = minicpm_tokens_per_param(flops)
    params = (flops / (6.0 * ratio)) ** 0.5
    return params, ratio * params


_HOFFMANN: dict[str, Any] = dict(
    params="total",
    flops="6ND with embeddings and attention",
    dataset="MassiveText",
    fitted={"params": (7e7, 1.6e10), "tokens": (5e9, 5e11), "flops": (6e18, 3e21)},
)

LAWS = (
    Law(
        name="hoffmann_a1",
        title="Hoffmann et al. 2022, approach 1",
        source="arXiv 2203.15556, Tables 2 and 3",
        mark="VR",
        exponent_interval=(0.488, 0.502),
        quantities={"allocation": HOFFMANN_A1.optimum},
        **_HOFFMANN,
    ),
    Law(
        name="hoffmann_a2",
        title="Hoffmann et al. 2022, approach 2",
        source="arXiv 2203.15556, Tables 2 and A3",
        mark="VR",
        exponent_interval=(0.462, 0.534),
        quantities={"allocation": HOFFMANN_A2.optimum},
        **_HOFFMANN,
    ),
    Law(
        name="hoffmann_a3",
        title="Hoffmann et al. 2022, approach 3, unrounded",
        source="arXiv 2203.15556, TeX source of eq. 10",
        mark="VS",
        quantities=_additive(HOFFMANN_A3),
        **_HOFFMANN,
    ),
    Law(
        name="hoffmann_a3_rounded",
        title="Hoffmann et al. 2022, approach 3, as printed",
        source="arXiv 2203.15556, eq. 10",
        mark="VS",
        in_panel=False,
        note="rounded: misses the paper's own optimum by 20%",
        quantities=_additive(HOFFMANN_A3_ROUNDED),
        **_HOFFMANN,
    ),
    Law(
        name="besiroglu",
        title="Besiroglu et al. 2024, replication of approach 3",
        source="arXiv 2404.10102 and its notebook",
        mark="VS",
        params_interval=besiroglu_interval,
        exponent_interval=(0.487, 0.538),
        quantities=_additive(BESIROGLU),
        **_HOFFMANN,
    ),
    Law(
        name="porian",
        title="Porian et al. 2024, tuned, constant learning rate",
        source="arXiv 2406.19146 and its repository",
        mark="VR",
        params="with_head",
        flops="6ND with head, no attention",
        dataset="RefinedWeb",
        fitted={"params": (5e6, 9.02e8), "flops": (1.25e16, 2.56e19)},
        exponent_interval=(0.491, 0.505),
        quantities={"allocation": PORIAN_TUNED.optimum},
    ),
    Law(
        name="llama3",
        title="Llama 3 team 2024",
        source="arXiv 2407.21783, section 3.2.1; constants refitted to its 16.55T tokens",
        mark="VR",
        params="total",
        flops="6ND",
        dataset="Llama 3 pretraining mix",
        fitted={"params": (4e7, 1.6e10), "flops": (6e18, 1e22)},
        exponent_interval=(0.455, 0.47),
        quantities={"allocation": llama3_optimum},
    ),
    Law(
        name="deepseek",
        title="DeepSeek LLM 2024",
        source="arXiv 2401.02954, formula 4, as later accounts quote it",
        mark="V2",
        params="active_non_embedding",
        flops="M D with attention, no embeddings",
        dataset="in-house",
        fitted={"flops": (1e17, 2e20)},
        quantities={"allocation": _deepseek_optimum},
    ),
    Law(
        name="gemstones",
        title="Gemstones 2025, approach 1",
        source="arXiv 2502.06857, parameters/*.json",
        mark="VS",
        params="total",
        flops="own count",
        dataset="Dolma",
        fitted={"params": (5e7, 2e9), "tokens": (1e9, 3.5e11)},
        note="a runs from 0.46 to 0.80 with the analysis chosen",
        exponent_interval=(0.458, 0.799),
        in_panel=False,
        quantities={"allocation": gemstones_optimum},
    ),
    Law(
        name="gemstones_hot",
        title="Gemstones 2025, approach 3 before cooldown",
        source="arXiv 2502.06857, parameters/*.json",
        mark="VS",
        params="total",
        flops="own count",
        dataset="Dolma",
        in_panel=False,
        note="fitted before cooldown",
        fitted={"params": (5e7, 2e9), "tokens": (1e9, 3.5e11)},
        quantities=_additive(GEMSTONES_HOT),
    ),
    *(
        Law(
            name=f"gadre_{dataset}",
            title=f"Gadre et al. 2024, over-training, {dataset}",
            source="arXiv 2403.08540 and its repository",
            mark="VR",
            params="total",
            flops="6ND",
            dataset=dataset,
            in_panel=False,
            note="its E is not identified by the runs; use it to see over-training, not to allocate",
            fitted={"params": (1.1e7, 6.9e9), "tokens": (2e8, 9e11)},
            quantities={"loss": lambda p, law=law: law.loss(p.total, p.tokens), "allocation": law.optimum},
        )
        for dataset, law in GADRE.items()
    ),
    Law(
        name="olmo_ladder_c4",
        title="OLMo ladder 2024, C4 loss",
        source="arXiv 2412.04403; refit of its 16 final losses",
        mark="VR",
        params="non_embedding",
        flops="6ND",
        dataset="OLMo mix, C4 loss",
        in_panel=False,
        fitted={"params": (1.9e8, 1.3e9), "tokens": (1.9e9, 2.6e11)},
        quantities={
            "loss": lambda p: OLMO_LADDER_C4.loss(p.non_embedding, p.tokens),
            "allocation": OLMO_LADDER_C4.optimum,
        },
    ),
    Law(
        name="cerebras_gpt",
        title="Cerebras-GPT 2023",
        source="arXiv 2304.03208, eq. 1, second-hand",
        mark="V2",
        params="total",
        flops="own count",
        dataset="the Pile, 20 tokens a parameter",
        fitted={"params": (1.11e8, 1.3e10), "flops": (2.6e18, 2.3e22)},
        in_panel=False,
        quantities={"loss": lambda p: cerebras_pile_loss(6.0 * p.total * p.tokens)},
    ),
    Law(
        name="minicpm",
        title="MiniCPM 2024",
        source="arXiv 2404.06395, section 4.5",
        mark="VS",
        params="non_embedding",
        flops="6ND",
        dataset="in-house",
        fitted={"params": (4e7, 2e9)},
        in_panel=False,
        note="constants hold with N and D in billions; 192 tokens a parameter on average, far from every other law",
        quantities={"allocation": _minicpm_optimum},
    ),
)
