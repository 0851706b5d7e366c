"""`jaxscale train` as a user runs it: the steps, their speed, and the gradient noise scale beside them."""

import json

import yaml
from click.testing import CliRunner

from jaxscale.cli.train import command

MODEL = {
    "name": "tiny",
    "num_layers": 1,
    "d_model": 32,
    "num_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 16,
    "d_ff": 64,
    "vocab_size": 64,
}


def test_a_run_tells_what_it_learned_and_how_fast(tmp_path) -> None:
    model = tmp_path / "tiny.yaml"
    model.write_text(yaml.safe_dump(MODEL))
    arguments = [str(model), "--cluster", "cpu:2", "--layout", "data=2", "--seq-len", "16", "--global-batch-size", "4"]
    answer = CliRunner().invoke(
        command, [*arguments, "--steps", "2", "--noise-scale", "--json"], catch_exceptions=False
    )
    first, second = json.loads(answer.stdout)["steps"]
    assert first["step"] == 0
    assert second["loss"] != first["loss"]
    assert first["step_time_s"] > 0
    assert second["step_time_s"] > 0
    assert "noise_scale_sequences" in second
    header, *lines = (line for line in answer.stderr.splitlines() if line.startswith(("training", "step")))
    assert header == "training tiny as data=2,microbatch_size=1,remat=full on 2 emulated devices, synthetic tokens"
    assert "with compiling" in lines[0]
    assert "tokens/s" in lines[1]
    assert "noise scale" in lines[1]
