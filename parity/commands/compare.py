"""`parity compare`: two files, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from parity.commands.selection import Selection, with_selection

if TYPE_CHECKING:
    from parity.report import Report

__all__ = ["compare"]


@with_selection
def compare(
    selection: Selection,
    json: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write the report as JSON.")] = None,
    junit: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Also write JUnit XML: a case for each layer and phase.")
    ] = None,
    markdown: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write Markdown.")] = None,
    sarif: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Also write SARIF, for code hosts.")] = None,
    html: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Also write a page to look into: graph, curves, tensors.")
    ] = None,
    fix: Annotated[
        Optional[Path], typer.Option(metavar="OUT.keras", help="Write a repaired copy of the Keras model.")
    ] = None,
    fix_script: Annotated[
        Optional[Path], typer.Option(metavar="OUT.py", help="Write a script that repairs the Keras model.")
    ] = None,
) -> int:
    """Compare two files layer by layer: activations, gradients and optimizer updates."""
    from parity.reports.fix import FixView, check_fix, save_fix
    from parity.reports.output import check_target, progress_on, show, write

    options = selection.keywords()
    targets = ((json, "--json"), (junit, "--junit"), (markdown, "--markdown"), (sarif, "--sarif"), (html, "--html"))
    for target, option in targets:
        if target is not None:
            check_target(target, option, selection.files)
    check_fix(fix, fix_script, selection.files)
    from parity.session import check_and_fix

    with progress_on() as progress:
        repair = check_and_fix(
            **options,
            progress=progress,
            details=html is not None,
            fixes="always" if fix or fix_script else "diverged",
        )
    report = repair.before
    if json is not None:
        write(json, report.to_json(), "--json")
    if html is not None:
        write(html, report.to_html(), "--html")
    show(report)
    _tell_ci(report, junit, markdown, sarif)
    if fix is not None or fix_script is not None:
        show(FixView(repair))
        keras, custom_objects = Path(selection.keras), selection.custom_objects
        for line in save_fix(repair, fix, fix_script, keras=keras, custom_objects=custom_objects):
            show(line)
    if report.exit_code == 2:
        from parity.reports.console import verdict_line
        from parity.reports.output import complain

        complain(verdict_line(report) + _remedy(report))
    return report.exit_code


def _tell_ci(report: Report, junit: Path | None, markdown: Path | None, sarif: Path | None) -> None:
    """The files that CI servers show, and what GitHub's runner reads where there is one."""
    from parity.reports.cases import suite_of
    from parity.reports.github import tell_github

    suites = [suite_of(report)]
    if junit is not None:
        from parity.reports.junit import write_junit

        write_junit(junit, suites)
    if markdown is not None:
        from parity.reports.markdown import write_markdown

        write_markdown(markdown, suites)
    if sarif is not None:
        from parity.reports.sarif import write_sarif

        write_sarif(sarif, suites)
    for annotation in tell_github(suites):
        typer.echo(annotation)


def _remedy(report: Report) -> str:
    """What to do about an unverified report: allow, by name, what cannot be seen."""
    for probe in report.probes:
        if probe.status in ("unverified", "unpaired"):
            reason = f" ({probe.note})" if probe.note else ""
            return (
                f"{reason}; look at it, or permit it with --allow '{probe.status}:{probe.layer or probe.keras_layer}'"
            )
    return ""
