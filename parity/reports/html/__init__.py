"""A report as one page that needs nothing but a browser, and the index of several."""

from parity.reports.html.page import Entry, index, render

__all__ = ["Entry", "index", "render"]
