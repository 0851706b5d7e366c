"""With DeepSpeed installed: its DeepSpeedConfig reads each JSON as on that many ranks, and checks the batch."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from deepspeed.runtime import config as ds  # pyrefly: ignore

for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    case = json.loads((folder / "case.json").read_text())
    written = json.loads((folder / case["filename"]).read_text())
    said = {"case": folder.name, "error": ""}
    # As DeepSpeed divides it: the sequence axis by itself, tensor and pipeline by the mesh of the script.
    ranks = case["devices"] // case["tensor"] // case["pipeline"]
    ds.dist = SimpleNamespace(get_rank=lambda: 0, get_world_size=lambda ranks=ranks: ranks)
    try:
        config = ds.DeepSpeedConfig(written)
        said |= {"batch": config.train_batch_size, "stage": config.zero_optimization_stage}
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print("SAID", json.dumps(said), flush=True)
