import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.aot import request as request_module
from jaxscale.aot.cache import Cache, default_cache_dir, default_max_bytes
from jaxscale.aot.request import CompileRequest
from jaxscale.errors import SpecError
from jaxscale.types import REMAT_POLICIES, MLAShape, MoEShape, RematPolicy
from jaxscale.types.codec import decode, encode
from tests.aot.requests import SHAPE, request


def test_entries_come_back(tmp_path):
    cache = Cache(tmp_path)
    cache.put("a", {"x": [1, 2.5, None]})
    assert cache.get("a") == {"x": [1, 2.5, None]}
    assert cache.get("b") is None


def test_least_recently_used_goes_first(tmp_path):
    cache = Cache(tmp_path)
    for age, key in enumerate("abc"):
        cache.put(key, {"payload": os.urandom(1000).hex()})
        os.utime(cache._path(key), (age, age))
    cache.get("a")  # read just now
    one = cache.info().num_bytes / 3
    Cache(tmp_path, max_bytes=3.5 * one).put("d", {"payload": os.urandom(1000).hex()})
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


def test_a_damaged_entry_counts_as_absent(tmp_path):
    cache = Cache(tmp_path)
    cache.put("a", {"x": 1})
    cache._path("a").write_bytes(cache._path("a").read_bytes()[:-5])
    assert cache.get("a") is None
    assert cache.info().num_entries == 0


def test_many_writers_of_one_key_leave_one_sound_entry(tmp_path):
    cache = Cache(tmp_path)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda n: cache.put("a", {"n": [n] * 1000}), range(40)))
    answer = cache.get("a")
    assert answer is not None
    assert len(set(answer["n"])) == 1
    assert [p.name for p in cache.directory.iterdir()] == ["a.json.gz"]


def test_clear_forgets_everything(tmp_path):
    cache = Cache(tmp_path)
    cache.put("a", {})
    cache.put("b", {})
    assert cache.clear() == 2
    assert cache.info().num_entries == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="cannot be written"):
        Cache(tmp_path / "file").put("a", {})


def test_environment_chooses_folder_and_size(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXSCALE_CACHE", str(tmp_path))
    monkeypatch.setenv("JAXSCALE_CACHE_SIZE", "500 MiB")
    assert default_cache_dir() == tmp_path
    assert default_max_bytes() == 500 * 2**20
    monkeypatch.delenv("JAXSCALE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "jaxscale"


@pytest.mark.parametrize(
    "changed",
    [
        request("other"),
        request(remat="none"),
        request(fsdp=4),
        dataclasses.replace(request(), flags=(("xla_cpu_enable_fast_math", "true"),)),
        dataclasses.replace(request(), workload=dataclasses.replace(request().workload, seq_len=128)),
    ],
)
def test_a_key_depends_on_the_whole_question(changed):
    assert changed.key() != request().key()


def test_a_key_depends_on_code_and_versions_but_not_on_where_to_dump(monkeypatch):
    before = request().key()
    assert dataclasses.replace(request(), dump_dir="/elsewhere").key() == before
    monkeypatch.setattr(request_module, "versions", lambda: {"jax": "another"})
    assert request().key() != before
    monkeypatch.undo()
    monkeypatch.setattr(request_module, "source_digest", lambda: "another")
    assert request().key() != before


MOE = MoEShape(num_experts=8, experts_per_token=2, expert_d_ff=32)
MLA = MLAShape(kv_lora_rank=8, q_lora_rank=0, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)


@given(
    moe=st.sampled_from([None, MOE]),
    mla=st.sampled_from([None, MLA]),
    tensor=st.sampled_from([1, 2]),
    flags=st.lists(st.tuples(st.text(), st.text()), max_size=2),
)
def test_requests_survive_the_way_to_another_process(moe, mla, tensor, flags):
    asked = request(tensor=tensor)
    asked = dataclasses.replace(asked, shape=dataclasses.replace(SHAPE, moe=moe, mla=mla), flags=tuple(flags))
    assert decode(CompileRequest, encode(asked)) == asked


def test_sets_and_unknown_fields():
    policy = REMAT_POLICIES["offload_attention"]
    assert decode(RematPolicy, encode(policy)) == policy
    with pytest.raises(SpecError, match="unknown fields colour"):
        decode(RematPolicy, {"name": "x", "saved": [], "colour": 1})
