"""Launch files: what they start is what was asked, on as many hosts as the slice has, whatever the values hold."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxscale.catalog.slices import GENERATIONS
from jaxscale.cli.launch import command
from jaxscale.errors import SpecError
from jaxscale.launch import TARGETS, load_slice, make_job, render
from jaxscale.launch.render import GKE_ACCELERATORS

CONFIGS = Path(__file__).parents[2] / "tpu_configs"
SLICES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
BASH = shutil.which("bash")
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(__file__).parents[2] / ".venv/bin"))


def job(place: str, *words: str, **options):
    where = load_slice(place if ":" in place else str(CONFIGS / f"{place}.yaml"))
    return make_job(where, words or ("measure", "gpt2-124m", "--layout", "fsdp=4"), **options)


def runs_on(name: str, target: str) -> bool:
    """Whether a target can start a slice at all."""
    several, gke_only = name[0].isdigit(), name.startswith("tpu7x")
    if target == "gke":
        return True
    if target == "gcloud":
        return not gke_only
    return not several and not (gke_only and target == "skypilot")


def script_of(text: str, target: str) -> str:
    """The shell program that every host runs."""
    if target == "gke":
        return next(yaml.safe_load_all(text))["data"]["program.sh"]
    if target == "skypilot":
        return yaml.safe_load(text)["run"]
    if target == "gcloud":
        return text.partition("<<'END_OF_PROGRAM'\n")[2].partition("\nEND_OF_PROGRAM\n")[0]
    return text


def check_shell(script: str) -> None:
    assert BASH
    subprocess.run([BASH, "-n"], input=script, text=True, check=True)
    if SHELLCHECK:
        done = subprocess.run(
            [SHELLCHECK, "--shell", "bash", "-"], input=script, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_every_slice_can_be_rendered_or_says_why_not(target: str) -> None:
    for name in SLICES:
        if runs_on(name, target):
            assert job(name).name in render(job(name), target)
        else:
            with pytest.raises(SpecError, match=f"{name}: "):
                render(job(name), target)


@pytest.mark.parametrize(
    ("name", "target"), itertools.product(("v5p-64", "v6e-8", "2xv5p-256", "h100-sxm:16"), TARGETS)
)
def test_scripts_are_sound_shell(name: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("models: [tiny]\n")
    try:
        text = render(job(name, "sweep", str(tmp_path / "sweep.yaml")), target)
    except SpecError:
        pytest.skip(f"{target} cannot start {name}")
    check_shell(script_of(text, target) if target in ("gke", "skypilot") else text)
    check_shell(script_of(text, target))
    assert "jaxscale sweep sweep.yaml" in text


@pytest.mark.parametrize("name", SLICES)
def test_gke_asks_for_as_many_hosts_and_chips_as_the_slice_has(name: str) -> None:
    where = load_slice(str(CONFIGS / f"{name}.yaml"))
    if where.cluster.chip.name not in GKE_ACCELERATORS:
        return
    _, jobset = yaml.safe_load_all(render(job(name), "gke"))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    [replicated] = jobset["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    pod = spec["template"]["spec"]
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert replicated["replicas"] * spec["parallelism"] * chips == where.cluster.num_chips
    assert spec["completions"] == spec["parallelism"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    assert topology == "x".join(map(str, where.cluster.tiers[0].shape))
    generation = next(g for g in GENERATIONS.values() if g.chip == where.cluster.chip.name)
    assert len(topology.split("x")) == len(generation.pod)
    # Names of pods are DNS labels: at most 63 characters.
    assert len(f"{jobset['metadata']['name']}-slice-0-{spec['parallelism']}-abcde") <= 63


@pytest.mark.parametrize("index", [0, 5, 31])
def test_every_host_of_several_slices_has_its_own_number(index: int) -> None:
    script = script_of(render(job("2xv5p-256"), "gke"), "gke").partition("mkdir")[0] + "echo $JAX_PROCESS_ID"
    seen = {"SLICE_INDEX": "1", "JOB_COMPLETION_INDEX": str(index)}
    done = subprocess.run(["bash", "-c", script], env=seen, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 32 + index


def test_skypilot_counts_nodes_and_chips() -> None:
    document = yaml.safe_load(render(job("h100-sxm:16"), "skypilot"))
    assert (document["num_nodes"], document["resources"]["accelerators"]) == (2, "H100:8")
    document = yaml.safe_load(render(job("v6e-16"), "skypilot"))
    assert document["num_nodes"] == 1
    assert document["resources"] == {
        "infra": "gcp/us-east5/us-east5-b", "accelerators": "tpu-v6e-16",
        "accelerator_args": {"runtime_version": "v2-alpha-tpuv6e"},
    }  # fmt: skip


def test_one_host_needs_no_coordinator() -> None:
    for target in ("gcloud", "gke", "slurm", "skypilot"):
        assert "JAX_NUM_PROCESSES" not in render(job("v5e-4"), target)


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(TEXTS, max_size=3), package=TEXTS, content=st.text(max_size=60))
@pytest.mark.parametrize("target", ["gke", "skypilot", "slurm", "gcloud"])
def test_whatever_the_values_hold_the_program_gets_them_as_they_are(
    target: str, words: list[str], package: str, content: str, tmp_path: Path
) -> None:
    """Run the host's script with stand-ins for what it calls, and look at what they were called with."""
    if "\r" in content or any(0xD800 <= ord(c) < 0xE000 for c in content):
        return  # text files are read with universal newlines
    (tmp_path / "spec.yaml").write_text(content, encoding="utf-8", newline="")
    text = render(
        job("v6e-8", "measure", *words, str(tmp_path / "spec.yaml"), package=package or "p", name="job"), target
    )
    shell = tmp_path / "shell"
    shutil.rmtree(shell, ignore_errors=True)
    shell.mkdir()
    stand_ins = (
        'uv() { :; }; python3() { :; }; exec() { "$@"; }; srun() { shift 5; "$@"; }\n'
        'jaxscale() { printf "%s\\0" "$@" > called; }\n'
    )
    subprocess.run(
        ["bash", "-c", stand_ins + script_of(text, target)], cwd=shell, check=True, capture_output=True,
        env={"HOME": str(shell), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    called = (shell / "job" / "called").read_text().split("\0")[:-1]
    assert called == ["measure", *words, "spec.yaml"]
    assert (shell / "job" / "spec.yaml").read_bytes() == content.encode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Sweep 1"}, r"name='Sweep 1' must be up to 40 lower-case"),
        ({"name": "a\nrm"}, "must be up to 40 lower-case"),
        ({"partition": "gpu\n#SBATCH --x"}, "partition=.*must be letters"),
        ({"queue": "a b"}, "queue='a b' must be letters"),
        ({"package": "jaxscale\nrm -rf"}, "package=.*printable ASCII on one line"),
        ({"hours": 0}, "hours=0 must be above 0"),
    ],
)
def test_values_that_have_no_place_in_a_launch_file(options: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        job("v5p-64", **options)


def test_what_a_slice_says_is_not_trusted_either(tmp_path: Path) -> None:
    text = (CONFIGS / "v5p-64.yaml").read_text()
    path = tmp_path / "mine.yaml"
    for old, new, message in (
        ("name: v5p-64", 'name: "a\\nrun: rm"', "name of the slice=.*printable ASCII"),
        ("JAX_PLATFORMS:", '"A; rm":', "'A; rm' is not a name of a variable"),
        ('"tpu,cpu"', '"tpu\\nrm"', "JAX_PLATFORMS=.*printable ASCII"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(SpecError, match=message):
            make_job(load_slice(str(path)), ["measure"])
    path.write_text(text.replace("zone: us-east5-a", 'zone: "$(rm -rf x)\'"'))
    script = render(make_job(load_slice(str(path)), ["measure"]), "gcloud")
    assert re.search(r"""^zone='\$\(rm -rf x\)'"'"''$""", script, re.MULTILINE)


def test_what_cannot_be_launched() -> None:
    with pytest.raises(SpecError, match=r"tpu_configs/v5p-64\.yaml"):
        load_slice("v5p-64")
    with pytest.raises(SpecError, match="need no launch"):
        load_slice("cpu:8")
    with pytest.raises(SpecError, match=r"command='sweeep' is not one of .*Did you mean sweep"):
        job("v5p-64", "sweeep")
    assert job("v6e-8", "probe").command == ("probe",)
    with pytest.raises(SpecError, match="command='probe' runs on one host and v5p-64 has 8; measure and sweep run"):
        job("v5p-64", "probe")
    with pytest.raises(SpecError, match="gke needs a TPU slice"):
        render(job("h100-sxm:16"), "gke")


def test_the_verb_writes_the_file(tmp_path: Path) -> None:
    out = tmp_path / "job.sbatch"
    words = ["h100-sxm:16", "--to", "slurm", "--out", str(out), "--", "measure", "gpt2-124m", "--layout", "fsdp=16"]
    answer = CliRunner().invoke(command, words)
    assert (answer.exit_code, answer.exception) == (0, None)
    assert f"sbatch {out}" in answer.stdout
    assert "#SBATCH --nodes=2\n" in out.read_text()
    assert "#SBATCH --gpus-per-node=8\n" in out.read_text()
