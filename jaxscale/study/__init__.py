"""What was measured, remembered: a store of measurements that many processes can write at once."""

from jaxscale.study.compare import Difference, differences
from jaxscale.study.store import Fault, Store
from jaxscale.study.table import read_table, write_table

__all__ = ["Difference", "Fault", "Store", "differences", "read_table", "write_table"]
