"""The wheel holds all that the package needs, and works from anywhere but the repository."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEARCH = ("search", "llama3-8b", "--cluster", "v5p-64", "--seq-len", "8192", "--global-batch-size", "128", "--quiet")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked by pip into a folder of its own; what it depends on is this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder), str(ROOT)]
    done = subprocess.run(built, capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("pip cannot get hatchling, which builds the wheel")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("jaxscale-*.whl")
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return target


def run(installed: Path, *arguments: str) -> str:
    """`python -m jaxscale` of the installed package, from a folder that is not the repository."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxscale", *arguments], cwd=installed.parent, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    (wheel,) = installed.parent.glob("jaxscale-*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("jaxscale/")}
    tracked = subprocess.run(["git", "ls-files", "jaxscale"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert {name for name in tracked if (ROOT / name).exists()} <= inside


def test_it_is_the_installed_package_that_runs(installed: Path) -> None:
    code = "import jaxscale; print(jaxscale.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=installed.parent, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert done.stdout.startswith(str(installed))


def test_search_reports_from_there(installed: Path) -> None:
    report = installed.parent / "report.html"
    record = json.loads(run(installed, *SEARCH, "--json", "--report", str(report)))
    assert record["top"]
    assert report.read_text().rstrip().endswith("</html>")


def test_catalogue_stacks_and_laws_are_there(installed: Path) -> None:
    assert len(json.loads(run(installed, "models", "--json"))) > 90
    assert "h100-sxm:8" in run(installed, "clusters", "h100-sxm:8")
    assert run(installed, "laws")
    assert run(installed, "plan", "--budget", "256xh100-sxm for 21 days")


def test_the_step_compiles_from_there(installed: Path) -> None:
    """For emulated devices: the child process finds the package, its data and its targets."""
    small = ("gpt2-124m", "--cluster", "cpu:8", "--seq-len", "128", "--global-batch-size", "8")
    record = json.loads(run(installed, "compile", *small, "--layout", "fsdp=8", "--json", "--no-cache"))
    assert record["status"] == "compiled"


def test_the_command_is_an_entry_point(installed: Path) -> None:
    (script,) = installed.glob("bin/jaxscale")
    assert "jaxscale.cli" in script.read_text()
