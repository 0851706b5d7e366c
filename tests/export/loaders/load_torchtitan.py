"""With torchtitan installed: its ConfigManager takes each module as --module and --config name it."""

import importlib
import json
import sys
from pathlib import Path

from torchtitan.config import ConfigManager  # pyrefly: ignore
from torchtitan.distributed import ParallelDims  # pyrefly: ignore

for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    case = json.loads((folder / "case.json").read_text())
    said = {"case": folder.name, "error": ""}
    module = case["filename"].removesuffix(".py")
    sys.modules.pop(module, None)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        config = ConfigManager().parse_args(["--module", module, "--config", "train"])
        dims = ParallelDims.from_config(config.parallelism, case["devices"])
        said |= {"batch": config.training.global_batch_size, "seq_len": config.training.seq_len}
        said |= {"tensor": dims.tp, "context": dims.cp, "expert": dims.ep, "pipeline": dims.pp}
    except (Exception, SystemExit) as error:
        said["error"] = f"{type(error).__name__}: {error}"
    sys.path.remove(str(folder))
    print("SAID", json.dumps(said), flush=True)
