"""The gate: a list of comparisons that must hold, what is allowed in them, and a baseline that may not get worse.

`config` reads what is to hold, `pool` runs it, `lock` remembers it, `judgement` says whether it holds, `run` does all.
"""
