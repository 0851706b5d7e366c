"""`jaxscale search` from end to end, and every way it is asked wrongly."""

import dataclasses
import json

import pytest

from jaxscale.cli import checks
from jaxscale.cli.search import parse_checks
from jaxscale.errors import SpecError
from jaxscale.types.checks import Check

SMALL = ("gpt2-124m", "--seq-len", "1024", "--global-batch-size", "16")
ON_EIGHT = (*SMALL, "--cluster", "h100-sxm:8", "--quiet")
FIELDS = {
    "layout", "step_time_s", "tokens_per_s_per_chip", "mfu", "hfu", "memory_bytes", "fits", "comm_bytes",
    "time_parts_s",
}  # fmt: skip


def test_table_fits_eighty_columns(jaxscale) -> None:
    answer = jaxscale("search", *ON_EIGHT)
    assert answer.code == 0
    assert answer.err == ""
    assert max(map(len, answer.out.splitlines())) <= 80
    for words in ("Looked at", "The best: #1", "Time of a step", "Memory per device", "Rejected", "█"):
        assert words in answer.out


def test_json_alone_on_stdout(jaxscale) -> None:
    answer = jaxscale("search", *ON_EIGHT, "--json", "--top", "2")
    record = json.loads(answer.out)
    assert len(record["top"]) == 2
    assert all(layout.keys() >= FIELDS for layout in record["top"])
    assert {"total", "parts"} <= record["top"][0]["memory_bytes"].keys()
    assert record["num_looked_at"] > record["num_fitting"] > 0


def test_limits_and_objective_reach_the_search(jaxscale) -> None:
    answer = jaxscale("search", *ON_EIGHT, "--json", "--limit", "tensor=2|4,remat=full", "--objective", "memory")
    layout = json.loads(answer.out)["top"][0]["layout"]
    assert layout["tensor"] in (2, 4)
    assert layout["remat"] == "full"


def test_several_clusters_by_time_and_by_money(jaxscale) -> None:
    clusters = ("--cluster", "h100-sxm:8", "--cluster", "v5e-16")
    answer = jaxscale("search", *SMALL, *clusters, "--quiet", "--json")
    record = json.loads(answer.out)
    assert sorted(record["by_time"]) == sorted(record["by_money"]) == ["h100-sxm:8", "v5e-16"]
    shown = jaxscale("search", *SMALL, *clusters, "--quiet")
    assert "Clusters compared" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_a_run_spec_stands_for_all_flags(jaxscale, tmp_path) -> None:
    spec = tmp_path / "run.yaml"
    spec.write_text(
        "model: gpt2-124m\nworkload: {seq_len: 1024, global_batch_size: 16}\ncluster: h100-sxm:8\n"
        'search: {top: 2, limits: "pipeline=1", headroom: 0.2}\noutput: {json: true}\n'
    )
    record = json.loads(jaxscale("search", str(spec), "--quiet").out)
    assert (record["model"], record["headroom"], len(record["top"])) == ("gpt2-124m", 0.2, 2)
    assert record["limits"] == "pipeline=1"
    again = json.loads(jaxscale("search", str(spec), "--quiet", "--global-batch-size", "32", "--top", "1").out)
    assert (again["global_batch_size"], len(again["top"])) == (32, 1)


def test_nothing_feasible_exits_with_three_and_says_what_would_help(jaxscale) -> None:
    answer = jaxscale(
        "search", "llama3-70b", "--cluster", "v5e-4", "--seq-len", "4096", "--global-batch-size", "4", "--quiet",
        "--limit", "tensor=1,microbatch_size=1,remat=full",
    )  # fmt: skip
    assert answer.code == 3
    for words in ("no layout of llama3-70b fits", "the closest needs", "feasible with", "chips"):
        assert words in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gpt2-124", "--cluster", "cpu:8", "--seq-len", "8", "--global-batch-size", "8"), "Did you mean gpt2-124m"),
        (("gpt2-124m", "--cluster", "v5q-64", "--seq-len", "8", "--global-batch-size", "8"), "Did you mean"),
        (("gpt2-124m", "--seq-len", "8", "--global-batch-size", "8"), "--cluster is missing"),
        (("gpt2-124m", "--cluster", "cpu:8", "--global-batch-size", "8"), "--seq-len is missing"),
        (("gpt2-124m", "--cluster", "cpu:8", "--seq-len", "0", "--global-batch-size", "8"), "seq_len=0"),
        (("gpt2-124m", "--cluster", "cpu:8", "--seq-len", "-8", "--global-batch-size", "8"), "seq_len=-8"),
        (("gpt2-124m", "--cluster", "cpu:8", "--seq-len", "8", "--global-batch-size", "9" * 30), "between 1 and 2**53"),
        ((*ON_EIGHT, "--precision", "bf61"), "precision='bf61'"),
        ((*ON_EIGHT, "--optimizer", "adam"), "Did you mean adamw"),
        ((*ON_EIGHT, "--chips", "0"), "--chips"),
        ((*ON_EIGHT, "--top", "0"), "--top"),
        ((*ON_EIGHT, "--headroom", "1.5"), "headroom=1.5"),
        ((*ON_EIGHT, "--objective", "tiem"), "Did you mean time"),
        ((*ON_EIGHT, "--limit", "tensor<8"), "not written like"),
        ((*ON_EIGHT, "--check", "compil"), "Did you mean compile"),
        ((*ON_EIGHT, "--report", "/nonexistent/folder/r.html"), "does not exist"),
        ((*ON_EIGHT, "--report", "/"), "is a folder"),
    ],
    ids=lambda value: " ".join(value[-2:])[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_exits_with_two_and_one_sentence(arguments, said: str, jaxscale) -> None:
    answer = jaxscale("search", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_the_report_path_is_checked_before_the_work(jaxscale, monkeypatch, tmp_path) -> None:
    def never(*_, **__):
        raise AssertionError("searched before the path was checked")

    monkeypatch.setattr("jaxscale.cli.search.search", never)
    assert jaxscale("search", *ON_EIGHT, "--report", str(tmp_path / "missing" / "r.html")).code == 2


def test_the_report_is_written_whole(jaxscale, tmp_path) -> None:
    path = tmp_path / "report.html"
    answer = jaxscale("search", *ON_EIGHT, "--report", str(path), "--json")
    assert answer.code == 0
    assert path.read_text().rstrip().endswith("</html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    json.loads(answer.out)


def test_a_layout_that_the_compiler_refuses_is_struck_out(jaxscale, monkeypatch) -> None:
    """The list is walked down until as many have passed as were asked for."""

    def compiled(shape, workload, cluster, rows):
        for row in rows:
            passed = row.rank not in (1, 3)
            record = dataclasses.replace(row.predicted, tier="compiled", memory_bytes=1.1 * row.predicted.memory_bytes)
            sentence = "fits" if passed else "does not fit: the compiler needs 99 GiB"
            yield row, Check(kind="compile", passed=passed, sentence=sentence, seconds=1.0, estimate=record)

    monkeypatch.setattr(checks, "_compile_checks", compiled)
    answer = jaxscale("search", *ON_EIGHT, "--json", "--top", "2", "--check", "compile")
    top = json.loads(answer.out)["top"]
    assert [(layout["rank"], layout["passed"]) for layout in top] == [(1, False), (2, True), (3, False), (4, True)]
    assert top[1]["checks"][0]["compiled"]["tier"] == "compiled"
    shown = jaxscale("search", *ON_EIGHT, "--top", "2", "--check", "compile")
    assert "The best: #2" in shown.out
    assert "99 GiB" in shown.out


def test_all_struck_out_exits_with_three(jaxscale, monkeypatch) -> None:
    def compiled(shape, workload, cluster, rows):
        for row in rows:
            yield row, Check(kind="compile", passed=False, sentence="refused", seconds=1.0)

    monkeypatch.setattr(checks, "_compile_checks", compiled)
    answer = jaxscale("search", *ON_EIGHT, "--check", "compile")
    assert answer.code == 3
    assert "none of the" in answer.err


def test_checks_are_read_from_a_list() -> None:
    assert parse_checks(" compile, ") == ("compile",)
    with pytest.raises(SpecError, match="is not one of"):
        parse_checks("compile,measure")


def test_a_compiler_that_cannot_answer_strikes_nothing_out(jaxscale, monkeypatch) -> None:
    rounds: list[int] = []

    def compiled(shape, workload, cluster, rows):
        rounds.append(len(rows))
        for row in rows:
            yield row, Check(kind="compile", passed=None, sentence="there is no compiler", seconds=0.0)

    monkeypatch.setattr(checks, "_compile_checks", compiled)
    answer = jaxscale("search", *ON_EIGHT, "--check", "compile")
    assert answer.code == 0
    assert rounds == [3]
    assert "The best: #1" in answer.out
    assert "there is no compiler" in answer.out


def test_json_is_printed_where_nothing_fits_too(jaxscale) -> None:
    answer = jaxscale(
        "search", "llama3-70b", "--cluster", "v5e-4", "--seq-len", "4096", "--global-batch-size", "4", "--quiet",
        "--limit", "tensor=1,microbatch_size=1,remat=full", "--json",
    )  # fmt: skip
    assert answer.code == 3
    record = json.loads(answer.out)
    assert record["top"] == []
    assert record["closest"]
