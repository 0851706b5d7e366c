"""Write the bootstrap ensemble of the Chinchilla replication that ships with the law pack.

    python experiments/planner/bootstrap_besiroglu.py PATH/TO/svg_extracted_data.csv

The points are those read off Hoffmann et al.'s figure 4 by Besiroglu et al. (epoch-research/analyzing-chinchilla); the
five of highest loss are dropped, as they do. Only our own refits are written, not the points.
"""

import argparse
import os
from importlib import resources
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxscale.plan.fit import FORMS, fit, read_runs

DRAWS, SEED = 200, 0
NAMES = ("E", "A", "B", "alpha", "beta")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", type=Path)
    result = fit(FORMS["chinchilla"], read_runs(parser.parse_args().points, drop_highest=5), draws=DRAWS, seed=SEED)
    columns = [list(result.constants).index(name) for name in NAMES]
    lines = [",".join(NAMES), *(",".join(f"{row[i]:.7g}" for i in columns) for row in result.bootstrap)]
    path = Path(str(resources.files("jaxscale.plan.laws") / "besiroglu_bootstrap.csv"))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in NAMES:
        low, high = result.interval(name)
        print(
            f"{name:<6} {result.constants[name]:.6g}  95% {low:.5g} to {high:.5g}  sd {result.standard_error(name):.3g}"
        )


if __name__ == "__main__":
    main()
