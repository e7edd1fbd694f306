"""Damaged files by the thousand: `python -m tests.fuzz mat --count 10000 --seed 0`.

A *suite* (see `suite.Suite`) makes damaged files of one family and opens them; `driver.run` opens them in a worker with
limits on time and memory, and reports every case that ends otherwise than in success or in one line of a `ParityError`.
A new family is one module here with `SUITES`, and a line in `suites.py`.
"""
