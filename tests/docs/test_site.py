"""The documentation site builds without a warning, and its pages need nothing from the network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxscale.cli import VERBS

from .blocks import ROOT

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")
# Addresses that a browser would fetch by itself; links that a reader follows are not among them.
_FETCHED = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="(?:https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="(?:https?:)?//'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder


def test_pages_fetch_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not _FETCHED.search(page.read_text(encoding="utf-8")), page


def test_everything_generated_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "generated:" not in page.read_text(encoding="utf-8"), page
    reference = (site / "reference/cli/index.html").read_text(encoding="utf-8")
    assert all(f"jaxscale {verb}" in reference for verb in VERBS)


def test_formulas_are_mathml(site: Path) -> None:
    page = (site / "concepts/time/index.html").read_text(encoding="utf-8")
    assert 'class="arithmatex"' not in page
    assert page.count("<math") > 20
    assert "<mfrac>" in page


def test_schedules_are_drawn(site: Path) -> None:
    page = (site / "concepts/pipelines/index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4
    assert "Pipeline schedule zero_bubble" in page


def test_concepts_are_drawn(site: Path) -> None:
    for page, title in {
        "time": "under the roof of",
        "memory": "Memory of two stages",
        "network": "An all-gather by the size",
        "layouts": "32 devices of data=2,fsdp=4,tensor=4",
    }.items():
        text = (site / f"concepts/{page}/index.html").read_text(encoding="utf-8")
        assert re.search(rf'<svg[^>]*aria-label="[^"]*{re.escape(title)}', text), page


def test_fields_of_dataclasses_are_listed(site: Path) -> None:
    page = (site / "reference/python/index.html").read_text(encoding="utf-8")
    assert "jaxscale.types.Layout.microbatch_size" in page
    assert "sequences of one microbatch on one batch shard" in page
