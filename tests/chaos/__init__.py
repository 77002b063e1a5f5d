"""Nothing that was acknowledged is lost: real senders, a real receiver, and SIGKILL.

`python -m tests.chaos --rounds 20 --seed 1` runs it at length; `test_nothing_is_lost.py` runs a
short form with every test run.
"""
