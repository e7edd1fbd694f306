"""`parity rule`: what a cause is."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

__all__ = ["rule"]


def rule(slug: Annotated[Optional[str], typer.Argument(metavar="SLUG", help="e.g. bn-epsilon")] = None) -> int:
    """What a cause is, how it shows itself, an example, and its fix in Keras; without SLUG, all causes."""
    from parity.reports.output import show
    from parity.reports.rule import listing, sheet

    show(sheet(slug) if slug else listing())
    return 0
