"""`python -m jaxscale`."""

from jaxscale.cli import main

main()
