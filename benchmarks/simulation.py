"""How well `triage simulate` agrees with queueing theory, and how fast it is.

Every case that has a closed form, or a Markov chain that can be solved, is simulated and set beside
it; the parameters of QuCAD's and multi-QuCAD's example configurations (FDA, DIDSR) are among them:

    python benchmarks/simulation.py --json simulation.json
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import write_figures
from triage.simulation.compare import WaitComparison, Waiting, compare
from triage.simulation.formulas import Arrivals, two_preemptive_classes
from triage.simulation.scenario import scenario_of

_READING = {"mean_min": 10}
_STAT = {"priority": "stat", "share": 0.2, "reading": {"mean_min": 5}}


def one_disease(sensitivity: float, specificity: float, **changes: Any) -> dict[str, Any]:
    """Return a scenario with QuCAD's defaults: prevalence 10 %, 10 min, load 0.8, one reader."""
    ai = {"sensitivity": sensitivity, "specificity": specificity, "raises_to": "high"}
    disease = {"name": "diseased", "prevalence": 0.1, "ai": ai}
    kind = {"name": "images", "reading": _READING, "diseases": [disease]}
    return {"arrivals_per_hour": 4.8, "studies": [kind], **changes}


def several_ais(**changes: Any) -> dict[str, Any]:
    """Return multi-QuCAD's example: four groups of 25 %, each with its disease and its AI."""
    kinds = [
        {
            "name": group,
            "share": 0.25,
            "reading": _READING,
            "diseases": [
                {
                    "name": disease,
                    "prevalence": 0.4,
                    "ai": {"sensitivity": 0.9, "specificity": specificity, "raises_to": "high"},
                }
            ],
        }
        for group, disease, specificity in (
            ("CT", "A", 0.7),
            ("US", "B", 0.7),
            ("MR", "C", 0.7),
            ("CX", "D", 0.9),
        )
    ]
    return {"arrivals_per_hour": 4.8, "studies": kinds, **changes}


CASES: dict[str, dict[str, Any]] = {
    "QuCAD's defaults, interrupting": one_disease(1.0, 0.9, interrupting_from="high"),
    "the same, in turn": one_disease(1.0, 0.9),
    "the same, Se 0.9, interrupting": one_disease(0.9, 0.9, interrupting_from="high"),
    "two readers, in turn": one_disease(0.9, 0.9, readers=2, arrivals_per_hour=9.6),
    "two readers, interrupting": one_disease(
        0.9, 0.9, readers=2, arrivals_per_hour=9.6, interrupting_from="high"
    ),
    "five readers, interrupting": one_disease(
        0.9, 0.9, readers=5, arrivals_per_hour=24, interrupting_from="high"
    ),
    "20 % STAT of 5 min, interrupting": one_disease(
        0.9,
        0.9,
        arrivals_per_hour=5.33,
        orders=[_STAT, {"priority": "routine", "share": 0.8}],
        interrupting_from="high",
    ),
    "lognormal reading times, in turn": one_disease(
        0.9,
        0.9,
        studies=[
            {
                "name": "images",
                "reading": {"mean_min": 10, "spread": "lognormal", "variation": 0.7},
                "diseases": [
                    {
                        "name": "diseased",
                        "prevalence": 0.1,
                        "reading": {"mean_min": 15, "spread": "constant"},
                        "ai": {"sensitivity": 0.9, "specificity": 0.9},
                    }
                ],
            }
        ],
        arrivals_per_hour=4.5,
    ),
    "multi-QuCAD's example, interrupting": several_ais(interrupting_from="high"),
    "multi-QuCAD's example, in turn": several_ais(),
}


@dataclass(frozen=True)
class Line:
    """A mean wait beside what theory says of it, in minutes."""

    case: str
    group: str
    simulated: float
    low: float
    high: float
    theory: float

    @property
    def is_inside(self) -> bool:
        """Whether theory is inside the 95 % interval."""
        return self.low <= self.theory <= self.high


def lines_of(case: str, comparison: WaitComparison) -> list[Line]:
    """Return the diseased, the others and the flagged, with and without the AI."""
    lines = []
    for group in comparison.groups:
        if group.kind not in ("disease", "other", "flagged"):
            continue
        for said, waiting in (("without", group.without_ai), ("with", group.with_ai)):
            assert waiting.formula_mean_min is not None
            name = f"{group.name}, {said} AI"
            lines.append(_line(case, name, waiting, waiting.formula_mean_min))
    return lines


def chain(days: int, replications: int) -> list[Line]:
    """Return two readers and STAT studies of another length: QuCAD's room with emergencies."""
    scenario = scenario_of(
        {
            "readers": 2,
            "arrivals_per_hour": 10.66,
            "orders": [_STAT, {"priority": "routine", "share": 0.8}],
            "studies": [{"name": "images", "reading": _READING}],
            "interrupting_from": "stat",
            "days": days,
            "replications": replications,
        }
    )
    per_min = scenario.hourly_arrivals[0] / 60
    waits = two_preemptive_classes(
        Arrivals(0.2 * per_min, 5, 50), Arrivals(0.8 * per_min, 10, 200), readers=2
    )
    comparison = compare(scenario, seed=7)
    groups = [one for one in comparison.groups if one.kind == "order"]
    case = "two readers, 20 % STAT of 5 min"
    return [
        _line(case, group.name, group.without_ai, wait)
        for group, wait in zip(groups, waits, strict=True)
    ]


def _line(case: str, group: str, waiting: Waiting, theory: float) -> Line:
    mean = waiting.mean_min
    return Line(case, group, mean.mean, mean.low, mean.high, theory)


def main() -> None:
    """Simulate all cases and print them beside theory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--replications", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    arguments = parser.parse_args()
    began, played = time.perf_counter(), 0
    lines = []
    for case, content in CASES.items():
        runs = {"days": arguments.days, "replications": arguments.replications}
        comparison = compare(scenario_of({**content, **runs}), seed=7)
        played += 2 * int(comparison.scenario.expected_studies)
        lines += lines_of(case, comparison)
    took = time.perf_counter() - began
    lines += chain(arguments.days, arguments.replications)
    for line in lines:
        mark = " " if line.is_inside else "*"
        print(
            f"{line.case:36} {line.group:38} {line.simulated:7.2f} "
            f"({line.low:6.2f} to {line.high:6.2f})  theory {line.theory:7.2f} {mark}"
        )
    inside = sum(line.is_inside for line in lines)
    print(f"theory is inside the 95 % interval in {inside} of {len(lines)}")
    print(f"{played / took:.0f} studies a second")
    if arguments.json:
        means = {
            f"{line.case} {line.group}": {
                "simulated_min": line.simulated,
                "theory_min": line.theory,
            }
            for line in lines
        }
        counts = {"cases": len(lines), "inside": inside, "studies_per_s": round(played / took)}
        write_figures(arguments.json, {**counts, **means})


if __name__ == "__main__":
    main()
