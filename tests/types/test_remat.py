"""Remat policies by name and by their ops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.errors import LayoutError
from jaxscale.types import REMAT_POLICIES, LayoutBatch, own_remat, parse_layout, remat_policy

OPS = sorted(REMAT_POLICIES["none"].saved)


@given(places=st.dictionaries(st.sampled_from(OPS), st.booleans()), inputs=st.booleans())
def test_a_policy_is_read_as_it_is_written(places: dict[str, bool], inputs: bool) -> None:
    saved, offloaded = ({op for op, host in places.items() if host is where} for where in (False, True))
    policy = remat_policy(own_remat(saved, offloaded, offload_layer_input=inputs))
    assert (policy.saved, policy.offloaded, policy.offload_layer_input) == (saved, offloaded, inputs)
    assert remat_policy(policy.name) == policy


def test_a_policy_that_has_a_name_is_called_by_it() -> None:
    for policy in REMAT_POLICIES.values():
        text = own_remat(policy.saved, policy.offloaded, offload_layer_input=policy.offload_layer_input)
        assert remat_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fulll", "Did you mean full"),
        ("save:mlp_upp", "no op is called 'mlp_upp'"),
        ("save:q+q@host", "q is kept both on the device and on the host"),
    ],
)
def test_unknown_policies_are_refused(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        parse_layout(f"fsdp=8,remat={text}")


def test_a_batch_keeps_policies_of_its_own() -> None:
    layouts = [parse_layout(f"fsdp=8,remat={r}") for r in ("full", "save:mlp_up+q@host", "dots")]
    batch = LayoutBatch.from_layouts(layouts)
    assert list(batch.layouts()) == layouts
    assert list(batch.take([1]).layouts()) == [layouts[1]]  # type: ignore[arg-type]
