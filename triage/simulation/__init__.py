"""What triage by AI brings a reading room: a discrete-event simulation, and the closed forms.

A scenario (`scenario`) says who comes, who reads and what the AI does. `cohorts` draws the studies
of a replication, `room` lets them be read with and without the AI, `compare` says what the
difference is, and `formulas` what queueing theory says where it has an answer.
"""
