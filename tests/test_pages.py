"""The pages of the causes: every cause has one, what they say in Python runs, and they fit a terminal."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import parity.layers
import parity.optimizers
from parity.causes import CAUSES, FAMILIES, HEADINGS, page
from parity.errors import BadUsage
from parity.layers.base import Kind
from parity.optimizers.base import UpdateRule
from parity.reports.output import as_text
from parity.reports.rule import listing, render_list, render_page, sheet

PACKAGE = Path(parity.layers.__file__).parents[1]
PAGES = PACKAGE / "pages"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[`([^`]+)`\]\(([^)]+)\)")
HYPHENATED = re.compile(r"[a-z]+(?:-[a-z]+)+")
WORDS = {slug for slug in CAUSES if "-" not in slug}


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(c) for c in kind.__subclasses__())) if kind.__subclasses__() else {kind}


def declared() -> set[str]:
    """What the fields of layer types and update rules say they would be."""
    for package in (parity.layers, parity.optimizers):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return {cause for base in (Kind, UpdateRule) for c in subclasses(base) for cause in c.causes.values()}


def written(path: Path) -> set[str]:
    """The texts in a module that look like the slug of a cause: hyphenated, with the first word of one."""
    first = {slug.split("-")[0] for slug in CAUSES if "-" in slug}
    texts = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {t for t in texts if HYPHENATED.fullmatch(t) and t.split("-")[0] in first}


MODULES = sorted([*(PACKAGE / "rules").glob("*.py"), *PACKAGE.glob("*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_a_rule_names_has_a_page(path):
    assert written(path) - set(CAUSES) == set()


def test_the_rules_name_causes_at_all():
    named = set().union(*(written(path) for path in MODULES if path.parent.name == "rules"))
    assert {"conv-groups", "kernel-flip", "optimizer-kind"} <= named | declared()
    assert len(named) > 20


def test_what_a_field_names_has_a_page():
    assert {"bn-epsilon", "optimizer-nesterov"} <= declared() <= set(CAUSES)


def test_the_pages_are_those_of_the_vocabulary():
    assert {path.stem for path in PAGES.iterdir()} == set(CAUSES)
    assert len(CAUSES) == len(set(CAUSES)) == sum(map(len, FAMILIES.values()))


def test_titles_are_short_and_unlike():
    titles = [page(slug).title for slug in CAUSES]
    assert len(set(titles)) == len(titles)
    assert max(map(len, titles)) <= 42


@pytest.mark.parametrize("slug", CAUSES)
def test_a_page_has_all_its_parts(slug):
    found = page(slug)
    assert found.slug == slug
    assert slug in FAMILIES[found.family]
    assert found.title
    assert len(found.summary) > 80
    assert tuple(found.sections) == HEADINGS
    assert all(len(body) > 40 for body in found.sections.values())
    text = (PAGES / f"{slug}.md").read_text(encoding="utf-8")
    assert 15 <= len(text.splitlines()) <= 45
    assert max(map(len, text.splitlines())) <= 120
    assert re.search(r"\d", found.sections["Example"]), "an example has numbers"
    assert LINK.search(found.sections["Easily confused with"])
    for name, target in LINK.findall(text):
        assert target == f"{name}.md"
        assert name in CAUSES
        assert name != slug
    for name in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", text):
        assert name in CAUSES


@pytest.mark.parametrize("slug", CAUSES)
def test_its_code_runs(slug, capsys):
    blocks = FENCE.findall(page(slug).sections["Fix in Keras"])
    assert blocks, "a fix is code"
    space = {"__name__": "__page__"}
    for block in blocks:
        assert max(map(len, block.splitlines())) <= 76, "wider than 80 columns when indented"
        expected = [line.split("# ", 1)[1] for line in block.splitlines() if line.startswith("print(") and "# " in line]
        exec(compile(block, f"{slug}.md", "exec"), space)
        printed = capsys.readouterr().out
        for comment in expected:
            assert numbers(comment) == [pytest.approx(n, abs=6e-3) for n in numbers(printed)][: len(numbers(comment))]
            printed = printed.partition("\n")[2]


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", text)]


def test_code_stands_in_the_fix_alone():
    for slug in CAUSES:
        found = page(slug)
        others = [found.summary, *(body for heading, body in found.sections.items() if heading != "Fix in Keras")]
        assert not any("```" in text for text in others), slug


@pytest.mark.parametrize(
    ("slug", "says"),
    [
        ("bn-epsilom", "bn-epsilon"),
        ("BN_epsilon", "bn-epsilon"),
        ("kernel-flipped", "kernel-flip"),
        ("weight-decay", "'parity rule' lists all"),
        ("../causes", "there is no cause '../causes'"),
        ("", "there is no cause ''"),
    ],
)
def test_an_unknown_cause_is_told_apart(slug, says):
    with pytest.raises(BadUsage) as caught:
        page(slug)
    assert says in str(caught.value)


def test_the_list_fits_eighty_columns():
    lines = as_text(listing(), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    for family in FAMILIES:
        assert family in lines
    for slug in CAUSES:
        assert any(re.fullmatch(rf"{slug} +{re.escape(page(slug).title)}", line) for line in lines), slug


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_page_can_be_drawn(width):
    for slug in CAUSES:
        text = as_text(sheet(slug), width=width)
        found = page(slug)
        assert text.startswith(slug)
        assert all(f"\n{heading}\n" in text for heading in HEADINGS)
        assert "](" not in text
        assert "```" not in text
        assert max(map(len, text.splitlines())) <= width
        if width >= 80:
            blocks = FENCE.findall(found.sections["Fix in Keras"])
            kept = [line.rstrip() for block in blocks for line in block.splitlines() if line.strip()]
            drawn = text.splitlines()
            assert all(f"    {line}" in drawn for line in kept), "code is shown as it is"


def test_they_are_printed_on_a_console():
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=80)
    render_list(console)
    render_page("bn-epsilon", console)
    text = console.file.getvalue()
    assert "optimizer-weight-decay-as-lr-decay" in text
    assert "Batch normalisation: another epsilon" in text
    assert "BatchNormalization(epsilon=1e-5)" in text


def test_pages_name_nothing_outside_the_project():
    odd = re.compile(r"/work|/tmp|\bshared/|issue #?\d|\bassistant\b|\bsession\b|CAUSES\.md|SEMANTICS", re.IGNORECASE)
    for path in PAGES.iterdir():
        assert not odd.search(path.read_text(encoding="utf-8")), path.name


def test_reading_a_page_loads_no_framework():
    code = (
        "import sys; from parity.causes import page; page('bn-epsilon'); from parity.reports.rule import sheet; "
        "sheet('bn-epsilon'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "tensorflow", "keras", "tf_keras"} == set()


def test_pages_are_shipped():
    pyproject = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert '"pages/*.md"' in pyproject
