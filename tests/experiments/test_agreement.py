"""What the agreement experiment's README says is what its tables of cases hold."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "agreement"


def tabulate():
    spec = importlib.util.spec_from_file_location("agreement_tabulate", FOLDER / "tabulate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_made_from_the_cases():
    text = (FOLDER / "README.md").read_text()
    assert "<!-- tpu aims -->" in text
    assert tabulate().with_tables(text) == text


def test_groups_of_axes_are_counted_one_by_one():
    rows = [
        {"grid": "a", "chip": "v5p", "communication": "fsdp:0.0000 fsdp+expert:-0.0700"},
        {"grid": "a", "chip": "v5p", "communication": "fsdp+expert:-0.2500"},
    ]
    assert tabulate().apart(rows).splitlines()[2:] == ["| `a` | v5p | `fsdp+expert` | 2 | -25.0% to -7.0% |"]
