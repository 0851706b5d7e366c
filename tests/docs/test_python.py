"""Every Python block of README and documentation runs as it stands."""

import subprocess
import sys

import pytest

from .blocks import ROOT, Block, blocks

PYTHON = [block for block in blocks() if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}:{block.line}")
def test_it_runs(block: Block) -> None:
    ran = subprocess.run([sys.executable, "-c", block.text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
