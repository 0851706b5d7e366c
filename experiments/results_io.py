"""What the studies of this folder share: points of a sweep file with their predictions, and results with provenance."""

import csv
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxscale import __version__
from jaxscale.cli.sweep_points import Point, points_of
from jaxscale.cli.sweep_spec import load_sweep
from jaxscale.measure.surroundings import git_revision

ROOT = Path(__file__).parents[1]
STORES = ROOT / ".jaxscale"  # not under version control; what is worth keeping is exported beside the study


def points(spec: Path) -> list[Point]:
    """Every combination of a sweep file that can run, with what is predicted of it."""
    found, skipped = points_of(load_sweep(spec))
    for entry in skipped:
        print(f"cannot run: {entry.what}: {entry.why}", file=sys.stderr)
    return found


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    """Write rows as CSV, and beside it where they come from."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    path.with_suffix(".provenance.json").write_text(json.dumps(provenance(), indent=2) + "\n")


def provenance() -> dict:
    """Command, code, versions and day."""
    packages = ("jax", "jaxlib", "flax", "numpy", "libtpu")
    return {
        "command": " ".join(["python -m", f"experiments.{Path(sys.argv[0]).parent.name}.study", *sys.argv[1:]]),
        "jaxscale": __version__,
        "revision": git_revision(ROOT),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def sweep(spec: Path, out: Path) -> Path:
    """Run a sweep file, or the rest of it, and export its store to `out`; returns the store."""
    STORES.mkdir(exist_ok=True)
    store = STORES / f"{spec.parent.name}-{spec.stem}.db"
    command = [sys.executable, "-m", "jaxscale"]
    subprocess.run([*command, "sweep", str(spec), "--store", str(store)], check=True)
    subprocess.run([*command, "runs", "export", str(out), "--store", str(store)], check=True)
    return store
