"""A report as one page that needs nothing but a browser, and several with their index."""

from parity.reports.html.page import Entry, charts_library, index, render

__all__ = ["Entry", "charts_library", "index", "render"]
