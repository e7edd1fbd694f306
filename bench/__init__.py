"""Timings, as ratios: what parity costs beside what it runs."""
