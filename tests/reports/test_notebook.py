"""What a notebook shows."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

from tests.reports import examples


class Tags(HTMLParser):
    """Collects the tags and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_a_report_is_one_element_with_the_text_of_the_console():
    parser = Tags()
    parser.feed(examples.divergent()._repr_html_())
    assert parser.tags <= {"pre", "span"}
    assert "diverged: first in structure at ip1" in parser.text


def test_text_from_a_file_is_escaped():
    html = dataclasses.replace(examples.divergent(), notes=("<script>alert(1)</script>",))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
