"""Limits as users write them."""

import numpy as np
import pytest

from jaxscale.errors import LayoutError
from jaxscale.search.limits import NO_LIMITS, Limit, parse_limits


def test_comparisons_join_on_one_field() -> None:
    limits = parse_limits("tensor>=2,tensor<=8", "tensor=4|16")
    assert limits.allowed("tensor", (1, 2, 4, 8, 16)) == (4,)


def test_short_names_and_zero_stages() -> None:
    limits = parse_limits("tp<=4,zero=1,sp=true")
    assert limits.fields["tensor"] == Limit(maximum=4)
    assert limits.fields["sequence_parallel"] == Limit(values=(1,))
    assert [limits.fields[f"{name}_shard"].values for name in ("params", "grads", "optimizer")] == [(0,), (0,), (1,)]


def test_free_fields_are_not_limited() -> None:
    assert NO_LIMITS.allowed("fsdp", (1, 2, 4)) == (1, 2, 4)
    assert parse_limits("fsdp=2").without("fsdp").allowed("fsdp", (1, 2, 4)) == (1, 2, 4)


def test_narrowing_keeps_what_the_user_said() -> None:
    both = parse_limits("remat=dots").narrowed(parse_limits("remat=full,microbatch_size=1"))
    assert both.fields["remat"] == parse_limits("remat=dots").fields["remat"]
    assert both.fields["microbatch_size"] == Limit(values=(1,))


def test_a_limit_is_an_array_function() -> None:
    assert Limit(minimum=2, maximum=8).allows(np.array([1, 2, 8, 9])).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tensor", "not written like"),
        ("tensr<=8", "Did you mean tensor"),
        ("tensor<=0", "above zero"),
        ("tensor<=x", "whole number"),
        ("remat<=full", "has no order"),
        ("remat=ful", "Did you mean full"),
        ("sequence_parallel=maybe", "true or false"),
        ("zero=4", "zero=0"),
    ],
)
def test_wrong_limits_are_told_apart(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        parse_limits(text)
