"""Our files through the loaders of the packages that they are for.

Each package is installed once into a folder of its own (~/.cache/jaxscale-real-packages); a test is skipped where pip
cannot get it. MaxText, Levanter and EasyDeL have environments with Python 3.12, the others borrow this one's torch.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from jaxscale.catalog import load_cluster, load_model, model_names
from jaxscale.cost import count_parameters
from jaxscale.errors import LayoutError
from jaxscale.export import TARGETS
from jaxscale.types import Workload, parse_layout

pytestmark = pytest.mark.slow

HOME = Path(os.environ.get("JAXSCALE_REAL_PACKAGES", Path.home() / ".cache" / "jaxscale-real-packages"))
LOADERS = Path(__file__).with_name("loaders")
WORKLOAD = Workload(seq_len=4096, global_batch_size=256)
CASES = {
    "fsdp": ("llama3-8b", "v5p-64", "fsdp=32,remat=full"),
    "hsdp_tensor": ("llama3-8b", "v5p-64", "data=2,fsdp=4,tensor=4,sp=true,remat=dots"),
    "ring": ("llama3-8b", "v5p-64", "fsdp=8,context=4,remat=attention"),
    "gather": ("llama3-8b", "h100-sxm:32", "fsdp=8,context=4,context_method=all_gather,remat=flash"),
    "pipeline": ("llama3-8b", "h100-sxm:32", "fsdp=4,tensor=2,pipeline=4,zero=1,remat=full"),
    "interleaved": (
        "llama3-8b", "h100-sxm:32", "fsdp=4,tensor=2,pipeline=4,schedule=interleaved,virtual_stages=2,remat=none"
    ),
    "zero1": ("llama3-8b", "h100-sxm:32", "fsdp=32,zero=1,microbatch=2,remat=full"),
    "zero2": ("llama3-8b", "h100-sxm:32", "fsdp=32,zero=2,remat=offload_attention"),
    "zero0": ("llama3-8b", "h100-sxm:32", "data=8,tensor=4,zero=0,remat=none"),
    "offload": ("llama3-8b", "h100-sxm:32", "fsdp=32,offload_optimizer=true,remat=offload_inputs"),
    "own_remat": ("llama3-8b", "v5p-64", "fsdp=32,remat=save:attention+mlp_up+q@host"),
    "large": ("llama3-70b", "h100-sxm:64", "fsdp=8,tensor=8,sp=true,remat=full"),
    "sparse": ("mixtral-8x7b", "h100-sxm:64", "data=2,fsdp=4,expert=8,remat=full"),
    "sparse_tensor": ("mixtral-8x7b", "h100-sxm:64", "fsdp=4,expert=8,tensor=2,sp=true,remat=full"),
    "latent": ("deepseek-v2-lite", "v5p-64", "fsdp=8,expert=4,remat=full"),
    "latent_large": ("deepseek-v3", "h100-sxm:256", "fsdp=8,expert=32,remat=full"),
    "qwen3": ("qwen3-8b", "v6e-64", "fsdp=64,remat=dots"),
    "qwen3_moe": ("qwen3-30b-a3b", "v5p-64", "fsdp=4,expert=8,remat=full"),
    "gemma2": ("gemma2-9b", "v5p-64", "fsdp=32,remat=full"),
    "gemma3": ("gemma3-27b", "v5p-64", "fsdp=32,remat=full"),
    "gpt_oss": ("gpt-oss-20b", "v5p-64", "fsdp=4,expert=8,remat=full"),
}  # fmt: skip
EMULATED = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=256"}
LEVANTER = ("marin-levanter==0.2.227.dev40316220070",)
EASYDEL = ("easydel==0.3.0", "pillow")
TORCHTITAN = ("torchtitan==0.3.0", "tyro", "docstring_parser", "typeguard", "spmd_types==0.2.3", "torchdata", "einops",
              "datasets<4.8", "tensorboard", "torch_checkpointing", "triton", "multiprocess", "dill", "xxhash",
              "pyarrow", "httpx", "aiohttp", "fsspec")  # fmt: skip
DEEPSPEED = ("deepspeed==0.19.8", "hjson", "py-cpuinfo", "msgpack", "einops", "ninja", "psutil")
MAXTEXT = ("maxtext==0.2.5", "jax", "flax", "optax", "orbax-checkpoint", "omegaconf", "ml_collections", "packaging",
           "psutil", "tensorboardX", "transformers", "sentencepiece", "jaxtyping", "pathwaysutils", "jinja2", "grain",
           "drjax", "qwix", "aqtp", "tokamax", "pillow", "tiktoken", "sympy")  # fmt: skip


def pip(python: str, *arguments: str) -> None:
    done = subprocess.run([python, "-m", "pip", "install", "-q", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install it: {done.stderr.strip().splitlines()[-1]}")


def borrowed(name: str, *requirements: str) -> dict[str, str]:
    """An environment of this interpreter with packages of their own, without what they depend on."""
    if find_spec("torch") is None:
        pytest.skip("torch is not installed (the oracle extra)")
    folder = HOME / name
    if not (folder / ".made").exists():
        pip(sys.executable, "--no-deps", "--target", str(folder), "--upgrade", *requirements)
        (folder / ".made").touch()
    return os.environ | {"PYTHONPATH": str(folder)}


def own(name: str, *requirements: str) -> str:
    """An interpreter of Python 3.12 with a package and what its loader and models import."""
    found = [shutil.which("python3.12"), *map(str, (Path.home() / ".pyenv/versions").glob("3.12*/bin/python"))]
    # A shim may be on the path without the version that it stands for.
    python = next((p for p in found if p and subprocess.run([p, "-c", ""], capture_output=True).returncode == 0), None)
    if python is None:
        pytest.skip(f"{name} needs Python 3.12")
    folder = HOME / name
    inside = str(folder / "bin" / "python")
    if not (folder / ".made").exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        pip(inside, *requirements)
        (folder / ".made").touch()
    return inside


def written(target: str, folder: Path) -> dict[str, dict]:
    """Every case that the target does not refuse, as files; what is known of it by name."""
    cases = {}
    for name, (model, where, text) in CASES.items():
        cluster, layout = load_cluster(where), parse_layout(text)
        try:
            made = TARGETS[target](load_model(model), WORKLOAD, cluster, layout)
        except LayoutError:
            continue
        if target == "torchtitan" and "def train()" not in made.text:
            continue  # a model that torchtitan does not have: apply() is for the user's own
        axes = {axis: getattr(layout, axis) for axis in ("data", "fsdp", "expert", "context", "tensor", "pipeline")}
        groups = 1 if cluster.chip.kind == "tpu" else cluster.num_chips // cluster.chips_per_host
        cases[name] = {"filename": made.filename, "devices": cluster.num_devices, "groups": groups, **axes}
        cases[name]["vocab_size"] = load_model(model).vocab_size
        (folder / name).mkdir()
        (folder / name / made.filename).write_text(made.text)
        (folder / name / "case.json").write_text(json.dumps(cases[name]))
    return cases


def loaded(target: str, folder: Path, python: str, environment: dict[str, str]) -> dict[str, dict]:
    """What the package's own loader says of every case."""
    script = str(LOADERS / f"load_{target}.py")
    done = subprocess.run(
        [python, "-W", "ignore", script, str(folder)], capture_output=True, text=True, env=environment, cwd=folder
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert done.returncode == 0, done.stderr[-3000:]
    return {said["case"]: said for said in (json.loads(line.removeprefix("SAID ")) for line in lines)}


def check(cases: dict[str, dict], answers: dict[str, dict]) -> None:
    """Every file was read, and means what it was made from."""
    assert answers.keys() == cases.keys()
    for name, said in answers.items():
        assert said["error"] == "", name
        wanted = cases[name] | {"batch": WORKLOAD.global_batch_size, "seq_len": WORKLOAD.seq_len}
        for field in said.keys() & wanted.keys():
            assert said[field] == wanted[field], (name, field)


def test_maxtext_loads_it_and_builds_the_same_model(tmp_path: Path) -> None:
    python = own("maxtext", *MAXTEXT)
    cases = written("maxtext", tmp_path)
    answers = loaded("maxtext", tmp_path, python, os.environ | EMULATED)
    check(cases, answers)
    counted = 0
    for name, said in answers.items():
        if "parameters" in said:
            counted += 1
            expected = count_parameters(load_model(CASES[name][0])).total
            # gemma3 comes from MaxText's own file, which has 64 rows of the vocabulary less.
            assert said["parameters"] == pytest.approx(expected, rel=1e-4 if name == "gemma3" else 0), name
            split = cases[name]["devices"]
            assert said["held"] == pytest.approx(said["parameters"] / split, rel=0.1) or split > cases[name]["fsdp"]
    assert counted >= 5


def test_levanter_loads_it_and_builds_the_same_model(tmp_path: Path) -> None:
    python = own("levanter", *LEVANTER)
    cases = written("levanter", tmp_path)
    assert len(cases) > 10
    answers = loaded("levanter", tmp_path, python, os.environ | EMULATED)
    check(cases, answers)
    for name, said in answers.items():
        expected = count_parameters(load_model(CASES[name][0])).total
        assert said["parameters"] == expected, name
        layout = parse_layout(CASES[name][2])
        whole = layout.params_shard == layout.optimizer_shard == "none"
        split = layout.tensor * (1 if whole else layout.fsdp * layout.context)
        assert said["held"] == pytest.approx(expected / split, rel=0.02), name


def test_levanter_builds_every_model_that_it_is_given(tmp_path: Path) -> None:
    python = own("levanter", *LEVANTER)
    cluster, layout = load_cluster("h100-sxm:8"), parse_layout("fsdp=8")
    expected = {}
    for name in model_names():
        shape = load_model(name)
        try:
            made = TARGETS["levanter"](shape, Workload(seq_len=512, global_batch_size=8), cluster, layout)
        except LayoutError:
            continue
        expected[name] = count_parameters(shape).total
        (tmp_path / name).mkdir()
        (tmp_path / name / made.filename).write_text(made.text)
        case = {"filename": made.filename, "devices": 8, "groups": 1, "vocab_size": shape.vocab_size}
        (tmp_path / name / "case.json").write_text(json.dumps(case))
    answers = loaded("levanter", tmp_path, python, os.environ | EMULATED)
    assert len(expected) > 50
    assert {name: said.get("parameters", said["error"]) for name, said in answers.items()} == expected


def test_easydel_loads_it(tmp_path: Path) -> None:
    python = own("easydel", *EASYDEL)
    cases = written("easydel", tmp_path)
    assert len(cases) > 10
    check(cases, loaded("easydel", tmp_path, python, os.environ | EMULATED))


def test_torchtitan_loads_it(tmp_path: Path) -> None:
    environment = borrowed("torchtitan", *TORCHTITAN)
    cases = written("torchtitan", tmp_path)
    assert len(cases) > 10
    check(cases, loaded("torchtitan", tmp_path, sys.executable, environment))


def test_megatron_core_has_every_argument(tmp_path: Path) -> None:
    environment = borrowed("megatron", "megatron-core==0.16.1", "einops")
    cases = written("megatron", tmp_path)
    answers = loaded("megatron", tmp_path, sys.executable, environment)
    check(cases, answers)
    assert {argument for said in answers.values() for argument in said["unknown"]} == set()


def test_deepspeed_loads_it(tmp_path: Path) -> None:
    environment = borrowed("deepspeed", *DEEPSPEED)
    check(cases := written("deepspeed", tmp_path), loaded("deepspeed", tmp_path, sys.executable, environment))
    assert len(cases) > 10


def test_accelerate_launches_with_it(tmp_path: Path) -> None:
    environment = borrowed("accelerate", "accelerate==1.15.0", "psutil")
    check(cases := written("accelerate", tmp_path), loaded("accelerate", tmp_path, sys.executable, environment))
    assert len(cases) > 10
