"""What one device runs: the model on its shards, rematerialisation, gradient accumulation and pipeline schedules."""
