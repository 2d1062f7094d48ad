"""Damages valid files and feeds them to every reader: `python -m tests.contracts.fuzz --inputs 100000 --minutes 10`."""
