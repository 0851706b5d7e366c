"""Every collective of the step: explicit forward and backward pairs, and the `Comms` that the zoo's modules call."""
