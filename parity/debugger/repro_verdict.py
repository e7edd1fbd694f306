"""How a reproducer ends: a table of what differs, and an exit code that says whether anything does."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["verdict_lines"]


def verdict_lines(columns: str, rows: Sequence[str], what: str, each: Sequence[str]) -> list[str]:
    """The last lines of a script.

    Args:
        columns: the names that an entry of COMPARED is unpacked into; `name` and `limit` are among them.
        rows: the entries, as code.
        what: of which the greatest are shown beside the differences, e.g. `values`.
        each: the lines of the loop that leave both sides' arrays of an entry in `want` and `have`.
    """
    return [
        "COMPARED = [", *rows, "]", "",
        "diverged = False",
        f'print(f"{{\'tensor\':<10}}{{\'largest difference\':>20}}{{\'of {what} up to\':>18}}")',
        f"for {columns} in COMPARED:",
        *(f"    {line}" for line in each),
        "    gap = np.abs(have.reshape(want.shape).astype(float) - want)",
        "    differs = not np.sqrt(np.mean(gap**2)) <= max(limit, 1e-30)",
        "    diverged |= differs",
        '    print(f"{name:<10}{gap.max():>20.3e}{np.abs(want).max():>18.3e}{\'  differs\' if differs else \'\'}")',
        "sys.exit(1 if diverged else 0)",
    ]  # fmt: skip
