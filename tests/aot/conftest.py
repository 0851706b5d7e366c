"""Eight emulated CPU devices for the tests that compile in this process."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
