"""A sweep in a process of its own: prints each identifier once its record is saved.

python -m tests.study.sweeper STORE NUM_WORKERS MODEL...
"""

import signal
import sys

from jaxscale.study import Store, job_of, run_sweep
from jaxscale.study.pool import Workers
from tests.measure.requests import request
from tests.study.tasks import quick


def main(address: str, workers: str, *models: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    jobs = [job_of(request(model)) for model in models]
    try:
        with Workers(int(workers), quick) as pool:
            started = lambda index: print(f"started {models[index]}", flush=True)  # noqa: E731
            for outcome in run_sweep(jobs, Store(address), pool, on_start=started):
                if outcome.source == "here" and outcome.measurement:
                    print(f"saved {outcome.measurement.identifier}", flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
