"""`python -m parity` is the command line."""

from parity.cli import run

if __name__ == "__main__":
    run()
