"""Traces through the importer of Chrome's trace viewer (Catapult), which Perfetto reads the same format as.

Perfetto's own trace processor is in no package registry. The viewer comes with a package for TensorBoard, which is
installed once into a folder of its own (~/.cache/jaxscale-real-packages); without it the tests are skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxscale import compile_step, predict_step
from jaxscale.api.compiled import compiled_trace
from jaxscale.report.step_trace import step_trace
from jaxscale.types import ModelShape, Workload

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

VIEWER = "tensorboard-plugin-profile==2.15.1"
HOME = Path(os.environ.get("JAXSCALE_REAL_PACKAGES", Path.home() / ".cache" / "jaxscale-real-packages"))
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt install chromium-driver)"
    ),
]
IMPORT = """
const model = new tr.Model();
new tr.importer.Import(model).importTraces([arguments[0]]);
const processes = model.getAllProcesses();
const threads = processes.flatMap(p => Object.values(p.threads));
return {
  warnings: model.importWarnings.map(w => w.type + ": " + w.message),
  length_ms: model.bounds.max - model.bounds.min,
  arrows: model.flowEvents.length,
  slices: threads.flatMap(t => t.sliceGroup.slices.map(s => [t.parent.name, t.name, s.title, s.start, s.duration])),
  counters: processes.flatMap(p => Object.values(p.counters)).map(
    c => [c.name, c.series.flatMap(s => s.samples.map(x => x.value))]),
};
"""
Imported = dict[str, Any]


def _viewer() -> Path:
    folder = HOME / "trace-viewer"
    page = folder / "tensorboard_plugin_profile" / "static" / "trace_viewer_index.html"
    if not page.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), VIEWER]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"pip cannot install it: {done.stderr.strip().splitlines()[-1]}")
    return page


@pytest.fixture(scope="module")
def imported() -> Iterator[Callable[[str], Imported]]:
    """What the viewer makes of a trace."""
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    page = _viewer()
    options = Options()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(page.as_uri())
        yield lambda text: driver.execute_script(IMPORT, text)
    finally:
        driver.quit()


def check(found: Imported, text: str, step_s: float, peak_bytes: float) -> None:
    """Nothing is lost or complained about; the step is as long and its memory as high as the estimate says."""
    events = json.loads(text)["traceEvents"]
    assert found["warnings"] == []
    assert len(found["slices"]) == sum(event["ph"] == "X" for event in events)
    assert found["arrows"] == sum(event["ph"] == "s" for event in events)
    assert found["length_ms"] == pytest.approx(1e3 * step_s, rel=1e-3)
    assert max(value for _, values in found["counters"] for value in values) == pytest.approx(peak_bytes, rel=1e-6)


def test_a_predicted_trace_opens(imported: Callable[[str], Imported]) -> None:
    workload = Workload(seq_len=8192, global_batch_size=128)
    layout = "fsdp=4,tensor=2,pipeline=4,remat=full"
    answer = predict_step("llama3-8b", workload, "v5p-64", layout)
    about, e = answer.subject, answer.estimate
    text = step_trace(e, about.shape, about.workload, about.cluster, about.stack)
    found = imported(text)
    check(found, text, e.step_time_s, e.memory_bytes)
    assert [name for name, _ in found["counters"]] == [f"memory of stage {stage} (bytes)" for stage in range(4)]
    forward = [s for s in found["slices"] if s[1] == "stage 0" and s[2].startswith("F") and s[2][1:].isdigit()]
    assert len(forward) == e.layout.num_microbatches(128)
    assert {s[1] for s in found["slices"]} >= {"stage 3", "stage 0 tensor", "stage 0 fsdp", "stage 0 pipeline"}


def test_a_compiled_trace_opens(imported: Callable[[str], Imported]) -> None:
    shape = ModelShape(
        name="tiny", num_layers=2, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=128, vocab_size=256
    )
    answer = compile_step(shape, Workload(seq_len=64, global_batch_size=4), "cpu:2", "fsdp=2,remat=full")
    about = answer.subject
    text = compiled_trace(answer.step, about.shape, about.workload, about.cluster)
    found = imported(text)
    drawn_s = max(start + duration for *_, start, duration in found["slices"]) / 1e3
    check(found, text, drawn_s, answer.compiled.memory_bytes)
    assert {s[1] for s in found["slices"]} >= {"compute", "fsdp"}
