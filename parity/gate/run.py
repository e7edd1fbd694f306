"""A gate from its configuration to its result: every pair compared, judged, held against its baseline."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.errors import ParityError
from parity.gate.baseline import against, asked, judged_phases
from parity.gate.config import Config, Pair
from parity.gate.judgement import Judgement, Problem, judge
from parity.gate.lock import CLIMATES, Entry, merge, read_lock
from parity.gate.pool import Done, Progress, Room, Task, run_all

__all__ = ["GateResult", "PairResult", "run_gate", "update_command"]


@dataclass(frozen=True)
class PairResult:
    """A pair's judgement, and how many seconds its comparison took."""

    judgement: Judgement
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The pair's."""
        return self.judgement.pair.name


@dataclass(frozen=True)
class GateResult:
    """What a gate found.

    Attributes:
        config: what was asked.
        results: one for each pair, in the configuration's order.
        notes: what concerns the gate as a whole.
        updated: the pairs whose baseline was made anew; None where none was to be.
    """

    config: Config
    results: tuple[PairResult, ...]
    notes: tuple[str, ...] = ()
    updated: tuple[str, ...] | None = None

    @property
    def exit_code(self) -> int:
        """1 where a pair diverged or got worse, else 2 where one could not be verified, else 0."""
        verdicts = {result.judgement.verdict for result in self.results}
        return 1 if "diverged" in verdicts else 2 if "unverified" in verdicts else 0

    @property
    def verdict(self) -> str:
        """`match`, `diverged` or `unverified`."""
        return ("match", "diverged", "unverified")[self.exit_code]


def run_gate(
    config: Config,
    *,
    jobs: int = 1,
    update: bool = False,
    details: bool = False,
    today: datetime.date | None = None,
    progress: Progress | None = None,
    told: Callable[[PairResult], None] = lambda _: None,
) -> GateResult:
    """Compare every pair, and say whether the gate holds.

    Args:
        config: what to compare, and what is allowed.
        jobs: how many processes at most; 0 runs all here.
        update: make the baselines anew of all pairs that hold but for their baseline.
        details: keep where and how tensors differ, for pages.
        today: decides which exceptions hold; by default the day that it is (UTC).
        progress: called as progress(what, done, total).
        told: called with each pair's result, in the configuration's order, as soon as that is known.

    Raises:
        ParityError: the baseline's file cannot be read or written.
    """
    today = today or datetime.datetime.now(datetime.timezone.utc).date()
    held = read_lock(config.lock) if config.lock is not None and not update else {}
    climates = CLIMATES if update else ({},)
    tasks = [
        Task(pair.name, _keywords(pair, details), Room.of(pair.options, climate))
        for climate in climates
        for pair in config.pairs
    ]
    made: dict[int, PairResult] = {}
    entries: dict[str, Entry] = {}
    runs: dict[int, list[Done | None]] = {i: [None] * len(climates) for i in range(len(config.pairs))}
    next_told = 0
    for number, done in run_all(tasks, jobs, progress):
        climate, index = divmod(number, len(config.pairs))
        runs[index][climate] = done
        finished = [d for d in runs[index] if d is not None]
        if len(finished) < len(climates):
            continue
        pair = config.pairs[index]
        judgement = _judged(pair, finished, today)
        if update and judgement.verdict == "match":
            entries[pair.name] = _entry(judgement, finished)
        elif not update and config.lock is not None:
            judgement = _held(judgement, held.get(pair.name), config)
        made[index] = PairResult(judgement, sum(d.seconds for d in finished))
        while next_told in made:
            told(made[next_told])
            next_told += 1
    results = tuple(made[i] for i in range(len(config.pairs)))
    names = {pair.name for pair in config.pairs} | config.unselected
    notes: list[str] = []
    if update and config.lock is not None:
        merge(config.lock, entries, keep=names)
    else:
        notes += [f"{config.lock} has a baseline for {n!r}, which is no pair here" for n in sorted(set(held) - names)]
    return GateResult(config, results, tuple(notes), tuple(entries) if update else None)


def _keywords(pair: Pair, details: bool) -> dict[str, object]:
    """What `parity.session.check` is given: fixes are tried where a divergence would be news."""
    return {**pair.options, "verify": not pair.allow, "details": details}


def _judged(pair: Pair, finished: Sequence[Done], today: datetime.date) -> Judgement:
    """The judgement of the run that says the worst."""
    found: list[Judgement] = []
    for done in finished:
        if done.report is None:
            found.append(Judgement(pair, None, (Problem("error", done.error),)))
        else:
            found.append(judge(pair, done.report, today))
    return max(found, key=lambda j: ("match", "unverified", "diverged").index(j.verdict))


def _entry(judgement: Judgement, finished: Sequence[Done]) -> Entry:
    reports = [done.report for done in finished if done.report is not None]
    allowed = [exemption.words for exemption in judgement.allowed]
    return Entry.of(reports, asked(judgement.pair, reports[0]), allowed, judged_phases(judgement.pair, reports[0]))


def _held(judgement: Judgement, entry: Entry | None, config: Config) -> Judgement:
    assert config.lock is not None
    try:
        return against(judgement, entry, config.lock, update_command(config))
    except ParityError as error:
        return Judgement(judgement.pair, judgement.report, (Problem("error", str(error)),))


def update_command(config: Config) -> str:
    """What makes the baseline of this configuration anew."""
    plain = config.path in (Path("parity.toml"), Path("pyproject.toml"))
    return "parity gate --update" if plain else f"parity gate --config {config.path} --update"
