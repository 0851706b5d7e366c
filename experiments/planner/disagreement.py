"""What the laws would train, and what a wrong choice would waste, over five decades of compute.

python experiments/planner/disagreement.py
"""

from jaxscale.plan.laws import LAWS, laws_for
from jaxscale.plan.panel import allocate, regret

BUDGETS = (1e20, 1e22, 5.76e23, 3.8e25)


def main() -> None:
    laws = [*laws_for("allocation", second_hand=True), LAWS["joint_moe"], LAWS["kaplan"]]
    for flops in BUDGETS:
        allocations = [allocate(law, flops) for law in laws]
        crossed = regret(allocations, laws_for("loss"), flops)
        truths = " | ".join(f"wasted if {name}" for name in crossed.truths)
        print(f"\n{flops:.3g} FLOPs\n\n| law | mark | N | 95% | D/N | decades outside | {truths} | worst |")
        print("|" + "---|" * (7 + len(crossed.truths)))
        for answer, row, worst in zip(allocations, crossed.wasted, crossed.worst, strict=True):
            interval = f"{answer.interval[0]:.2e} to {answer.interval[1]:.2e}" if answer.interval else ""
            shares = " | ".join(f"{100 * share:.1f}%" for share in row)
            far = max(answer.decades_outside.values(), default=0.0)
            chosen = " <-" if answer.law == crossed.choice else ""
            print(
                f"| {answer.law} | {answer.mark} | {answer.params:.2e} | {interval} | {answer.tokens_per_param:.3g} "
                f"| {far:.1f} | {shares} | {100 * worst:.1f}%{chosen} |"
            )


if __name__ == "__main__":
    main()
