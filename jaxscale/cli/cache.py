"""`jaxscale cache`: look at the kept compiles, or forget them."""

import click

from jaxscale.aot.cache import Cache
from jaxscale.cli.common import json_option, print_json
from jaxscale.units import format_bytes


@click.command()
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
@json_option
def command(action: str, as_json: bool) -> None:
    """Show how many compiled steps are kept and where, or clear them.

    The folder is $JAXSCALE_CACHE or ~/.cache/jaxscale; $JAXSCALE_CACHE_SIZE bounds it (default 2 GiB).
    """
    cache = Cache()
    cleared = cache.clear() if action == "clear" else 0
    info = cache.info()
    if as_json:
        print_json(
            {
                "directory": str(info.directory),
                "entries": info.num_entries,
                "bytes": info.num_bytes,
                "max_bytes": info.max_bytes,
                "cleared": cleared,
            }
        )
        return
    if action == "clear":
        click.echo(f"cleared {cleared} compiled steps from {info.directory}")
        return
    used = f"{format_bytes(info.num_bytes)} of {format_bytes(info.max_bytes)}"
    click.echo(f"{info.num_entries} compiled steps, {used}, in {info.directory}")
