"""Measurements -> the constants of a software stack, with intervals; and the stacks that ship with the package."""
