import json

import numpy as np
import pytest
from click.testing import CliRunner

from jaxscale.cli.fit_law import command
from jaxscale.errors import JaxscaleError
from jaxscale.plan.laws import dense


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    params, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    lines = ["N,D,loss,lr,bs,set"]
    for n, d in zip(params, tokens, strict=True):
        lines.append(f"{n},{d},{dense.BESIROGLU.loss(n, d)},1e-3,256,{'a' if d < 5e11 else 'b'}")
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_constants_checks_and_plots(table, tmp_path):
    result = run(table, "--bootstrap", 0, "--report", tmp_path / "fit.html", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["constants"]["alpha"] == pytest.approx(0.3478, rel=1e-3)
    assert record["leave_out"]["largest_relative_error"] < 1e-3
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert all(f'class="plot" id="{name}"' in page for name in ("isoflop", "residuals", "fitted"))


def test_text_of_a_filtered_fit(table):
    result = run(table, "--bootstrap", 0, "--no-leave-out", "--where", "set=a")
    assert result.exit_code == 0, result.output
    assert "30 runs" in result.stdout
    assert "L = E + A/N^alpha + B/D^beta" in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--law", "chinchila"),
        ("--law", "steplaw"),
        ("--law", "steplaw", "--report", "plots.html"),
        ("--column", "loss"),
        ("--where", "set=c"),
        ("--column", "loss=perplexity"),
    ],
)
def test_what_cannot_be_fitted_exits_with_2(table, options):
    result = run(table, "--bootstrap", 0, *options)
    assert isinstance(result.exception, JaxscaleError)
    assert result.exception.exit_code == 2
