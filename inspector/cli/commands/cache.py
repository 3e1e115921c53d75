"""The command that shows and clears what is kept between starts; it opens no target."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import print_report


@click.command(cls=InspectorCommand, schemas=("inspector.report.cache:CacheReport",))
@click.option("--clear", is_flag=True, help="Remove it all.")
@click.pass_obj
def cache(settings: Settings, *, clear: bool) -> None:
    """Show where symbols and types of dumps are kept between starts, and how much. No target is opened.

    How a kernel's symbols and BTF are decoded is kept for the next command on a dump of it, and nothing about the
    dump's memory. The directory may be removed at any time. FOLIOSCOPE_CACHE names another one, or "no" for none;
    --no-cache leaves it alone once. Nothing is kept of live kernels and guests.
    """
    from inspector.report.cache import build_cache_report, render_cache  # noqa: PLC0415  (msgspec, NumPy)
    from inspector.target.earlier import open_cache  # noqa: PLC0415  (drgn)

    print_report(settings, build_cache_report(open_cache(), clear=clear), render_cache)
