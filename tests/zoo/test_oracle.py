"""The oracle nobody here wrote: logits of Hugging Face's own models, from their own checkpoint files."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxscale.zoo import logits
from jaxscale.zoo.checkpoint.convert import load_checkpoint, save_checkpoint
from tests.zoo.cases import CASES, VOCAB, Case
from tests.zoo.draw import quick_jit

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SEQ_LEN = 24


def reference_model(case: Case, seed: int):
    """A Hugging Face model whose every parameter, norms and biases too, is random."""
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = getattr(transformers, case.config_class)(**case.config)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in name:
                continue
            if tensor.ndim == 1:
                tensor.add_(0.3 * torch.randn_like(tensor))
            elif tensor.ndim > 1:
                tensor.mul_(3.0)
    return model


def reference_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens), use_cache=False).logits.numpy()


@pytest.mark.parametrize("name", CASES)
def test_logits_match_transformers(name, tmp_path):
    case = CASES[name]
    model = reference_model(case, seed=len(name))
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    tokens = np.random.default_rng(0).integers(0, VOCAB, (2, SEQ_LEN))
    expected = reference_logits(model, tokens)

    params = load_checkpoint(case.shape, tmp_path)
    actual = np.asarray(quick_jit(lambda p, t: logits(case.shape, p, t))(params, jnp.asarray(tokens)))

    assert np.std(expected) > 0.05, "logits of a model that does something"
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)

    written = tmp_path / "written"
    save_checkpoint(case.shape, params, written, max_shard_bytes=50_000)
    (written / "config.json").write_text((tmp_path / "config.json").read_text())
    again = transformers.AutoModelForCausalLM.from_pretrained(written, attn_implementation="eager", dtype="float32")
    np.testing.assert_array_equal(reference_logits(again.eval(), tokens), expected)
