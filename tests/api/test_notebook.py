"""Answers in a real notebook kernel."""

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

CELLS = (
    "from jaxscale import Workload, predict_step, search_layouts\n"
    "workload = Workload(seq_len=2048, global_batch_size=32)\n"
    "ranking = search_layouts('gpt2-774m', workload, 'h100-sxm:8', limits=['remat=full|dots'])\n"
    "ranking",
    "predict_step('gpt2-774m', workload, 'h100-sxm:8', 'fsdp=8')",
    "ranking.to_pandas()[['layout', 'step_time_s', 'mfu']].head(3)",
    "ranking.figures()['time-parts']",
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_answers_are_shown_in_a_notebook() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [cell.outputs[-1].data for cell in notebook.cells]
    assert "trains fastest on h100-sxm:8" in shown[0]["text/html"]
    assert "The best layouts." in shown[0]["text/html"]
    assert "a step at" in shown[1]["text/html"]
    assert "step_time_s" in shown[2]["text/html"]
    assert "application/vnd.plotly.v1+json" in shown[3]
