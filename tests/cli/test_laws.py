"""`jaxscale laws` as a user runs it."""

import json

import pytest
from click.testing import CliRunner

from jaxscale.cli import cli
from jaxscale.errors import SpecError
from jaxscale.plan.laws import LAWS


def run(*args: str):
    return CliRunner().invoke(cli, ["laws", *args])


def test_every_law_is_listed_with_its_conventions():
    records = json.loads(run("--json").stdout)
    assert [r["name"] for r in records] == list(LAWS)
    assert all(r["source"] and r["mark_meaning"] and r["params"] and r["gives"] for r in records)
    listed = run().stdout
    assert all(name in listed for name in LAWS)


def test_laws_are_asked_about_a_model_in_their_own_counting():
    """GPT-3, 175B parameters on 300B tokens, by approach 3 as printed (arXiv 2203.15556, eq. 10)."""
    asked = ("hoffmann_a3_rounded", "--model", "gpt3-175b", "--tokens", "300B")
    (loss,) = [a for a in json.loads(run(*asked, "--json").stdout) if a["quantity"] == "loss"]
    assert loss["value"] == pytest.approx(1.69 + 406.4 / 174.6e9**0.34 + 410.7 / 300e9**0.28, abs=1e-3)
    assert loss["decades_outside"] == {"params": pytest.approx(1.04, abs=0.02)}
    assert loss["warnings"]
    assert "params 1.0" in run(*asked).stdout


def test_an_optimum_is_printed_as_people_write_it():
    """Chinchilla's own budget, 5.76e23 FLOPs: approach 1 gives 67B on 1.5T tokens (Table 3, rounded)."""
    assert "67.9B on 1.41T tokens" in run("hoffmann_a1", "--flops", "5.76e23").stdout


@pytest.mark.parametrize("args", [("nosuchlaw",), ("--model", "llama3-8b"), ("--tokens", "1T")])
def test_bad_questions_are_refused(args):
    assert isinstance(run(*args).exception, SpecError)
