"""Strict YAML: what PyYAML lets pass in silence is an error here, with the place and the nearest right word."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster, load_model, load_spec
from jaxscale.catalog.strict import build, parse_yaml, read_text
from jaxscale.errors import CatalogError, JaxscaleError, SpecError
from jaxscale.types import ModelShape, Tier

TIER = {"name": "ib", "kind": "switch", "shape": [4], "bytes_per_s": "50 GB/s", "latency_s": "4 us"}
UNITS = {"bytes_per_s": "bytes/s", "latency_s": "s"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", r"f.yaml \(line 2\): not valid YAML: key 'a' is given twice"),
        ("a: {b: 1, b: 2}", "key 'b' is given twice"),
        ("a: [1, 2", "not valid YAML"),
        ("- 1\n- 2", "f.yaml must be a mapping of names to values, got a list"),
        ("just words", "must be a mapping"),
        ("", "must be a mapping of names to values, got nothing"),
        ("1: a", "key 1 must be a word"),
        ("? [a, b]\n: c", "keys must be plain words"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("{" * 3000, "not valid YAML"),
        ("a: 2020-13-45", "not valid YAML"),
    ],
)
def test_bad_yaml(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_yaml(text, where="f.yaml")


def test_merge_keys_are_no_duplicates() -> None:
    made = parse_yaml("base: &b {a: 1, c: 3}\nmore: {<<: *b, a: 2}", where="f.yaml")
    assert made["more"] == {"a": 2, "c": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency": "4 us"}, "tier: 'latency' is unknown; known: .*Did you mean latency_s"),
        ({"bytes_per_s": 50e9}, "bytes_per_s=50000000000.0 has no unit"),
        ({"bytes_per_s": "50 GiB"}, "bytes_per_s='50 GiB' is not a quantity in bytes/s"),
        ({"bytes_per_s": "-1 GB/s"}, "must be a finite number that is not negative"),
        ({"shape": 4}, "shape must be a list, got a number"),
        ({"shape": [4.5]}, r"shape\[0\]=4.5 must be a whole number"),
        ({"shape": [True]}, "must be a whole number, got true/false"),
        ({"kind": "star"}, "kind='star' is not one of torus, switch"),
        ({"name": 3}, "name=3 must be text, got a number"),
    ],
)
def test_bad_value(change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(Tier, TIER | change, where="tier", units=UNITS)


def test_missing_field() -> None:
    with pytest.raises(SpecError, match="tier: latency_s missing"):
        build(Tier, {k: v for k, v in TIER.items() if k != "latency_s"}, where="tier", units=UNITS)


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    values = {"name": "m", "num_layers": 2, "d_model": 8, "num_heads": 2, "num_kv_heads": 2, "head_dim": 4, "d_ff": 16}
    shape = build(ModelShape, values | {"vocab_size": 32, "norm_epsilon": "1e-5"}, where="m")
    assert shape.norm_epsilon == 1e-5
    with pytest.raises(SpecError, match="norm_epsilon='tiny' must be a number"):
        build(ModelShape, values | {"vocab_size": 32, "norm_epsilon": "tiny"}, where="m")
    with pytest.raises(SpecError, match="tied_embeddings='no' must be true or false"):
        build(ModelShape, values | {"vocab_size": 32, "tied_embeddings": "no"}, where="m")


@pytest.mark.parametrize("loader", [load_model, load_cluster, load_spec])
def test_unreadable_paths(loader, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent\.yaml: cannot be read: No such file"):
        loader(str(tmp_path / "absent.yaml"))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CatalogError, match="not UTF-8"):
        loader(str(binary))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    with pytest.raises(CatalogError, match="too large"):
        read_text(path)


YAML_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(TIER)), YAML_VALUES)
def test_any_value_is_taken_or_named(field: str, value: object) -> None:
    try:
        made: object = build(Tier, TIER | {field: value}, where="tier", units=UNITS)
    except JaxscaleError as error:
        made = str(error)
    assert isinstance(made, Tier) or str(made).startswith("tier")
