"""`python -m tests.chaos`: many rounds, and their figures."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.round import RoundOutcome, run_round
from tests.tools import PostgresqlCluster


def main() -> int:
    """Run the rounds; return 1 if anything that was acknowledged is not as it was sent."""
    arguments = _arguments()
    outcomes: list[RoundOutcome] = []
    figures: dict[str, float] = {}
    with _database_server(arguments.database) as cluster:
        for number in range(arguments.rounds):
            url = cluster.url(cluster.create_database()) if cluster else ""
            with tempfile.TemporaryDirectory(prefix="triage-chaos-") as folder:
                outcome = run_round(
                    Path(folder) / "round",
                    seed=arguments.seed + number,
                    instances=arguments.instances,
                    kills=arguments.kills,
                    database_url=url,
                )
            outcomes.append(outcome)
            print(_in_words(outcome), flush=True)
            figures = _figures(outcomes)
            if arguments.json:  # after each round: the last may be a long way off
                arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    return 1 if figures.get("breaches") else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; they count up")
    parser.add_argument("--instances", type=int, default=5000, help="of each round")
    parser.add_argument("--kills", type=int, default=6, help="of each round")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


@contextmanager
def _database_server(kind: str) -> Iterator[PostgresqlCluster | None]:
    cluster = PostgresqlCluster() if kind == "postgresql" else None
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()


def _in_words(outcome: RoundOutcome) -> str:
    killed = ", ".join(f"{what} {n}" for what, n in sorted(outcome.killed.items()))
    lines = [
        f"seed {outcome.seed}: {outcome.audit.acknowledged} acknowledged, killed {killed}, "
        f"{outcome.audit.studies} studies, "
        f"{outcome.audit.reopened_of_two + outcome.audit.reopened_of_one} opened again, "
        f"{outcome.seconds:.1f} s",
        *(f"  BREACH {breach}" for breach in outcome.audit.breaches),
    ]
    return "\n".join(lines)


def _figures(outcomes: list[RoundOutcome]) -> dict[str, float]:
    senders: Counter[str] = sum((o.senders for o in outcomes), Counter())
    return {
        "rounds": len(outcomes),
        "kills": sum(o.killed.total() for o in outcomes),
        "instances_acknowledged": sum(o.audit.acknowledged for o in outcomes),
        "instances_sent": senders["sent"],
        "instances_resent": senders["sent"] - senders["acknowledged"],
        "acknowledged_twice": sum(o.audit.acknowledged_twice for o in outcomes),
        "answers_that_did_not_come": senders["answers that did not come"],
        "associations": senders["associations"],
        "associations_refused": senders["associations refused"],
        "other_statuses": sum(n for name, n in senders.items() if name.startswith("status")),
        "studies": sum(o.audit.studies for o in outcomes),
        "reopened_of_two_senders": sum(o.audit.reopened_of_two for o in outcomes),
        "reopened_after_a_kill": sum(o.audit.reopened_of_one for o in outcomes),
        "breaches": sum(len(o.audit.breaches) for o in outcomes),
        "seconds": round(sum(o.seconds for o in outcomes), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
