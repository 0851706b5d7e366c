"""Every valid layout, ranked: space, limits, selection, and why the rest was rejected."""
