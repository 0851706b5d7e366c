"""Saves measurements one after the other and prints each identifier once its record is saved."""

import resource
import sys

from jaxscale.errors import StoreError
from jaxscale.study import Store
from tests.study.records import measurement


def main(address: str, name: str, count: str, largest_file_bytes: str = "") -> None:
    store = Store(address)
    if largest_file_bytes:  # the disk is full from there on
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file_bytes),) * 2)
    for number in range(int(count)):
        identifier = f"{name}{number}"
        try:
            store.save(measurement(identifier))
        except StoreError as error:
            print(f"error: {error}", flush=True)
            return
        print(identifier, flush=True)


main(*sys.argv[1:])
