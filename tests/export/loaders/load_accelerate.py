"""With Accelerate installed: `accelerate launch` parses each file, and its FSDP and parallelism settings are built."""

import json
import sys
from pathlib import Path

from accelerate.commands.config.config_args import ClusterConfig  # pyrefly: ignore
from accelerate.commands.launch import _validate_launch_command, launch_command_parser  # pyrefly: ignore

for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    case = json.loads((folder / "case.json").read_text())
    path = str(folder / case["filename"])
    said = {"case": folder.name, "error": ""}
    try:
        ClusterConfig.from_yaml_file(path)  # refuses unknown keys
        args, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", path, "train.py"]))
        sizes = {name: int(getattr(args, f"parallelism_config_{name}_size")) for name in ("tp", "cp")}
        said |= {"devices": args.num_processes, "tensor": sizes["tp"], "context": sizes["cp"]}
    except (Exception, SystemExit) as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print("SAID", json.dumps(said), flush=True)
