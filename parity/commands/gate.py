"""`parity gate`: a list of comparisons that must hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from parity.errors import BadUsage

if TYPE_CHECKING:
    from parity.gate.run import GateResult, PairResult

__all__ = ["gate"]


def gate(
    pairs: Annotated[
        Optional[list[str]], typer.Argument(metavar="[PAIR]...", help="Names (or patterns) of pairs; all without any.")
    ] = None,
    config: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Default: parity.toml, or [tool.parity] in pyproject.toml.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make the baseline anew of the pairs that hold but for it.")
    ] = False,
    jobs: Annotated[
        Optional[int], typer.Option(min=1, metavar="N", help="Pairs compared at once; default: one for each processor.")
    ] = None,
    json: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write everything as JSON.")] = None,
    junit: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write JUnit XML.")] = None,
    markdown: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write Markdown.")] = None,
    sarif: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write SARIF, for code hosts.")] = None,
    html: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Also write an index and a page for each pair.")
    ] = None,
) -> int:
    """Compare a list of pairs, and fail on whatever is not allowed by name or got worse than its baseline."""
    from parity.gate.config import read_config
    from parity.gate.console import closing_lines, pair_lines
    from parity.gate.pool import processors
    from parity.gate.run import run_gate
    from parity.gate.suites import to_json
    from parity.reports.output import check_target, complain, progress_on, show, write

    asked = read_config(config).select(pairs or ())
    if update and asked.lock is None:
        raise BadUsage(f"--update: {asked.path} says lock = false, so there is no baseline")
    targets = (
        (json, "--json"),
        (junit, "--junit"),
        (markdown, "--markdown"),
        (sarif, "--sarif"),
        (asked.lock if update else None, "--update"),
    )
    read = [asked.path, *(path for pair in asked.pairs for path in pair.files)]
    for target, option in targets:
        if target is not None:
            check_target(target, option, read if option == "--update" or asked.lock is None else [*read, asked.lock])
    if html is not None:
        _check_folder(html)

    def tell(found: PairResult) -> None:
        for line in pair_lines(found, asked):
            show(line)

    with progress_on() as progress:
        # A terminal holds the bar or what is found; in a pipe each pair is told as soon as it is known.
        told = (lambda _: None) if progress else tell
        result = run_gate(
            asked, jobs=jobs or processors(), update=update, details=html is not None, progress=progress, told=told
        )
    for found in result.results if progress else ():
        tell(found)
    for line in closing_lines(result):
        show(line)
    if json is not None:
        write(json, to_json(result), "--json")
    _tell_ci(result, junit, markdown, sarif)
    if html is not None:
        _write_pages(html, result)
    if result.exit_code == 2:
        complain(_complaint(result))
    return result.exit_code


def _tell_ci(result: GateResult, junit: Path | None, markdown: Path | None, sarif: Path | None) -> None:
    """The files that CI servers show, and what GitHub's runner reads where there is one."""
    from parity.gate.suites import suites_of
    from parity.reports.github import tell_github
    from parity.reports.junit import write_junit
    from parity.reports.markdown import write_markdown
    from parity.reports.sarif import write_sarif

    suites = suites_of(result)
    if junit is not None:
        write_junit(junit, suites)
    if markdown is not None:
        write_markdown(markdown, suites, "parity gate")
    if sarif is not None:
        write_sarif(sarif, suites)
    for annotation in tell_github(suites, "parity gate"):
        typer.echo(annotation)


def _complaint(result: GateResult) -> str:
    """The first thing that could not be verified, in one line."""
    found = next(f for f in result.results if f.judgement.problems)
    problem = found.judgement.problems[0]
    return f"unverified: {found.name}: {problem.sentence}" + (f"; {problem.remedy}" if problem.remedy else "")


def _check_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadUsage(f"--html {path}: cannot be made ({error.strerror or error})") from None


def _write_pages(folder: Path, result: GateResult) -> None:
    from parity.gate.suites import sentence_of
    from parity.reports.html import Entry, charts_library, index, render
    from parity.reports.output import write

    entries, taken = [], {"index.html"}
    shared = "charts.js"
    for found in result.results:
        report, judgement = found.judgement.report, found.judgement
        page = ""
        if report is not None:
            page = _page_name(found.name, taken)
            write(folder / page, render(report, library=shared), "--html")
        said = sentence_of(judgement).removeprefix(f"{judgement.verdict}: ")
        entries.append(Entry(found.name, judgement.verdict, said, page, found.seconds))
    if len(taken) > 1:
        write(folder / shared, charts_library(), "--html")
    write(folder / "index.html", index(entries), "--html")


def _page_name(name: str, taken: set[str]) -> str:
    """A file name of a pair's own, whatever its name."""
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "pair"
    page, count = f"{stem}.html", 1
    while page.lower() in taken:
        count += 1
        page = f"{stem}-{count}.html"
    taken.add(page.lower())
    return page
