"""What one device runs: the model on its shards, rematerialisation, gradient accumulation and pipeline schedules.

Read in this order:

| module | what |
|---|---|
| `program` | `Program`: everything that is fixed when a step is traced |
| `batch` | the tokens of one device, by microbatch |
| `weights` | stored shards to whole weights, and gradients of those back to shards: gradient slots |
| `remat` | what of a layer's forward pass its backward pass keeps |
| `model` | embedding, a chunk of layers, head and loss on one device |
| `gradients` | one microbatch after the other; picks among the schedules; reductions once a step |
| `layered` | `schedule=layered` without a pipeline: one layer after the other |
| `pipeline` | gpipe and interleaved (differentiated scans), 1f1b (forward and backward in every tick) |
| `modular` | `schedule=layered` with a pipeline: one chunk after the other |
| `branch` | work that only some stages do in a tick |
| `noise` | norms of small batches' gradients, on the way |
"""
