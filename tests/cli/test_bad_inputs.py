"""Whatever is typed: one sentence on stderr and exit code 2 (3 where nothing fits), never a traceback."""

import contextlib
import io
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.cli import VERBS, main

SMALL = ("--cluster", "cpu:8", "--seq-len", "128", "--global-batch-size", "8")
ASKED = ("gpt2-124m", *SMALL)
LAYOUT = ("--layout", "fsdp=8")


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["jaxscale", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            return int(left.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


FILES = {
    "empty.yaml": b"",
    "scalar.yaml": b"42",
    "list.yaml": b"- a\n- b\n",
    "broken.yaml": b"model: [unclosed\n",
    "tabs.yaml": b"model:\n\tx: 1\n",
    "binary.yaml": bytes(range(256)),
    "twice.yaml": b"num_layers: 2\nnum_layers: 3\n",
    "alias.yaml": b"a: &a [*a]\n",
    "nan.yaml": b"num_layers: .nan\nd_model: .inf\n",
    "negative.yaml": b"{num_layers: -2, d_model: 8, num_heads: 4,num_kv_heads: 4, head_dim: 2, d_ff: 8, vocab_size: 9}",
    "half.yaml": b"num_layers: 2.5\n",
    "huge.yaml": b"num_layers: 99999999999999999999\n",
    "keys.yaml": b"num_layer: 2\n",
    "spec.yaml": b"model: gpt2-124m\nworkload: {seq_len: no, global_batch_size: 8}\ncluster: cpu:8\n",
    "spec2.yaml": b"model: gpt2-124m\nworkload: {seq_len: 8}\ncluster: []\n",
    "spec3.yaml": b"model: gpt2-124m\nworkload: 3\ncluster: cpu:8\n",
    "config.json": b"{",
    "list.json": b"[]",
    "other.json": b'{"model_type": "bert", "hidden_size": 4}',
    "deep.json": b"[" * 100_000,
    "unicode.json": '{"model_type": "лама"}'.encode(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    (made / "folder.yaml").mkdir()
    return made


@pytest.mark.parametrize("name", [*FILES, "missing.yaml", "missing.json", "folder.yaml"])
@pytest.mark.parametrize("place", ["models", "predict", "clusters"])
def test_a_file_that_is_no_answer_is_named(place: str, name: str, folder: Path) -> None:
    path = str(folder / name)
    asked = {
        "models": ("models", path),
        "predict": ("predict", path, *SMALL, *LAYOUT),
        "clusters": ("predict", "gpt2-124m", "--cluster", path, *SMALL[2:], *LAYOUT),
    }[place]
    code, out, err = run(*asked)
    assert (code, out) == (2, ""), err
    assert err.startswith("jaxscale: ")
    assert name.split(".")[0] in err
    assert "Traceback" not in err


WRONG = [
    ("predict", *ASKED),
    ("predict", "", *SMALL, *LAYOUT),
    ("predict", "gpt2-124m\0", *SMALL, *LAYOUT),
    ("predict", "../../etc/passwd", *SMALL, *LAYOUT),
    ("predict", "модель", *SMALL, *LAYOUT),
    ("predict", *ASKED, "--layout", "fsdp=8,fsdp=8"),
    ("predict", *ASKED, "--layout", "fsdp=-8"),
    ("predict", *ASKED, "--layout", "fsdp=8.0"),
    ("predict", *ASKED, "--layout", "fsdp=nan"),
    ("predict", *ASKED, "--layout", "fsdp=" + "9" * 400),
    ("predict", *ASKED, "--layout", "fsdp=9007199254740993"),
    ("predict", *ASKED, "--layout", "fsdp=²"),
    ("predict", *ASKED, "--layout", "fsdp=--8"),
    ("predict", *ASKED, "--layout", "fsdp=" + "9" * 5000),
    ("search", *ASKED, "--limit", "tensor<=²", "--quiet"),
    ("search", *ASKED, "--limit", "tensor<=" + "9" * 5000, "--quiet"),
    ("predict", *ASKED, "--layout", "=,=,="),
    ("predict", *ASKED, "--layout", "fsdp=8,remat="),
    ("predict", *ASKED, "--layout", "fsdp=8,axis_order=tensor/tensor"),
    ("predict", *ASKED, "--layout", "fsdp=8,zero=-1"),
    ("predict", "gpt2-124m", "--cluster", "cpu:0", *SMALL[2:], *LAYOUT),
    ("predict", "gpt2-124m", "--cluster", "cpu:-8", *SMALL[2:], *LAYOUT),
    ("predict", "gpt2-124m", "--cluster", "cpu:" + "9" * 400, *SMALL[2:], *LAYOUT),
    ("predict", "gpt2-124m", "--cluster", "v5p:0x4x4", *SMALL[2:], *LAYOUT),
    ("predict", "gpt2-124m", "--cluster", "h100-sxm:8x", *SMALL[2:], *LAYOUT),
    ("predict", "gpt2-124m", "--cluster", "", *SMALL[2:], *LAYOUT),
    ("predict", *ASKED, *LAYOUT, "--chips", "99999999999"),
    ("predict", *ASKED, *LAYOUT, "--seq-len", "1e3"),
    ("predict", *ASKED, *LAYOUT, "--seq-len", "9" * 5000),
    ("predict", *ASKED, *LAYOUT, "--global-batch-size", "-1"),
    ("predict", *ASKED, *LAYOUT, "--optimizer", ""),
    ("predict", *ASKED, *LAYOUT, "--report", "/proc/nothing/here.html"),
    ("export", *ASKED, *LAYOUT, "--to", "pytorch"),
    ("export", *ASKED, *LAYOUT, "--to", "jax", "--out", "/dev/null/x"),
    ("trace", *ASKED, *LAYOUT, "--out", "/proc/x.json"),
    ("explain", *ASKED, *LAYOUT, "--against", "fsdp=3", "--quiet"),
    ("explain", *ASKED, *LAYOUT, "--against", "@@", "--quiet"),
    ("search", *ASKED, "--limit", "tensor<=nan", "--quiet"),
    ("search", *ASKED, "--limit", "flux=2", "--quiet"),
    ("search", *ASKED, "--headroom", "nan", "--quiet"),
    ("search", *ASKED, "--headroom", "-inf", "--quiet"),
    ("search", *ASKED, "--top", "0", "--quiet"),
    ("clusters", "h100-sxm:", ),
    ("clusters", "\x1b[31mred"),
    ("models", "/"),
    ("validate", "missing.csv"),
    ("plan", "--budget", "nan"),
    ("plan", "--budget", "0xh100-sxm for 3 days"),
    ("fit-law", "missing.csv"),
    ("runs", "show", "nothing", "--store", "/nonexistent/store.db"),
    ("--nothing",),
    ("predict", "--nothing"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG, ids=lambda a: " ".join(a)[-60:].encode("ascii", "replace").decode())
def test_what_is_wrong_is_said_in_a_sentence(arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    assert err.strip()
    assert "Traceback" not in err


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "model.yaml"
    secret.write_text("num_layers: 2\n")
    denied = PermissionError(13, "Permission denied", str(secret))
    monkeypatch.setattr(Path, "read_text", mock.Mock(side_effect=denied))
    monkeypatch.setattr(Path, "read_bytes", mock.Mock(side_effect=denied))
    code, _, err = run("predict", str(secret), *SMALL, *LAYOUT)
    assert code == 2
    assert "ermission denied" in err


WORDS = st.one_of(
    st.sampled_from(["gpt2-124m", "llama3-8b", "--cluster", "cpu:8", "--layout", "fsdp=8", "--json", "--seq-len", "8"]),
    st.sampled_from(
        ["--global-batch-size", "128", "-1", "NaN", "--chips", "--precision", "fp8", "--", "-h", "--quiet"]
    ),
    st.text(max_size=12).filter(lambda word: "\0" not in word),
)


@settings(deadline=None, max_examples=60)
@given(verb=st.sampled_from(["predict", "models", "clusters", "export", "trace"]), words=st.lists(WORDS, max_size=9))
def test_no_words_bring_a_traceback(verb: str, words: list[str]) -> None:
    code, _, err = run(verb, *words)
    assert code in (0, 2, 3), err
    assert "Traceback" not in err


@settings(deadline=None, max_examples=100)
@given(text=st.text(alphabet=st.sampled_from("fsdptenorzxmiba=,/:+@-0123456789 é\n"), max_size=40))
def test_no_layout_brings_a_traceback(text: str) -> None:
    code, _, err = run("predict", *ASKED, "--layout", text)
    assert code in (0, 2), err


def test_every_verb_answers_for_nothing_at_all() -> None:
    """Called without arguments: its answer, or what is missing."""
    for verb in VERBS:
        if verb in ("probe", "check", "measure", "sweep", "cache"):  # would begin to work, or look at the user's files
            continue
        code, _, err = run(verb)
        assert code in (0, 2), (verb, err)
        assert "Traceback" not in err
