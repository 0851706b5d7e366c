import importlib.util
import os
import sys
from pathlib import Path

import pytest

# Fits of a few hundred runs: without this jax looks for an accelerator for half a minute.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

ROOT = Path(__file__).parents[2]
PUBLIC_CASES = ROOT.parent / "shared" / "laws" / "cases.csv"


@pytest.fixture(scope="session")
def law_cases():
    """The case checker of the experiments, which turns descriptions of cases into calls of the law pack."""
    folder = ROOT / "experiments" / "planner"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("law_cases", folder / "law_cases.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["law_cases"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module
