"""Compile one step's gradients for a described TPU, with its kernels; prints counts of Pallas calls as JSON.

Run in a process of its own: it loads the TPU compiler.
"""

import collections
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxscale import zoo
from jaxscale.types import REMAT_POLICIES, ModelShape, MoEShape

SEQ_LEN = 512
MODEL = ModelShape(
    name="tiny", num_layers=4, d_model=256, num_heads=2, num_kv_heads=1, head_dim=128, d_ff=256, vocab_size=512,
    window=256, global_interval=2, attention_softcap=20.0,
    moe=MoEShape(num_experts=4, experts_per_token=2, expert_d_ff=256),
)  # fmt: skip


def loss(params, tokens, execution, policy):
    positions = zoo.document_positions(SEQ_LEN)
    context = zoo.make_context(MODEL, positions)
    comms = zoo.LocalComms()
    x = zoo.embed(MODEL, params["embedding"], tokens, positions, comms=comms, dtype=jnp.bfloat16)
    (segment,) = zoo.segments(zoo.layer_kinds(MODEL))

    def step(x, layers):
        for kind, layer in zip(segment.kinds, layers, strict=True):
            body = zoo.layer_body(MODEL, kind, comms=comms, execution=execution)
            x, _ = jax.checkpoint(body, policy=policy)(layer, x, context)
        return x, None

    x, _ = jax.lax.scan(step, x, params["segments"][0])
    ones = jnp.ones(tokens.shape)
    return zoo.head_loss(MODEL, params["head"], params["embedding"], x, tokens, ones, comms=comms)


def main(remat):
    device = topologies.get_topology_desc(topology_name="v5e:1x1", platform="tpu", chips_per_host_bounds=(1, 1, 1))
    mesh = Mesh(np.array(device.devices[:1]), ("data",))
    whole = NamedSharding(mesh, PartitionSpec())
    described = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), zoo.abstract_params(MODEL)
    )
    tokens = jax.ShapeDtypeStruct((2, SEQ_LEN), jnp.int32, sharding=whole)
    execution = zoo.execution_for(MODEL, "tpu", seq_len=SEQ_LEN)
    policy = jax.checkpoint_policies.save_only_these_names(*REMAT_POLICIES[remat].saved)
    step = jax.jit(jax.grad(lambda params, tokens: loss(params, tokens, execution, policy)))
    text = step.lower(described, tokens).compile().as_text()
    calls = re.findall(r"%(\w+?)(?:\.\d+)? = [^\n]*custom_call_target=\"tpu_custom_call\"", text)
    print(json.dumps(collections.Counter(calls)))


if __name__ == "__main__":
    main(sys.argv[1])
