"""What a comparison says, in sentences: who gains, and who waits longer for it."""

from __future__ import annotations

from triage.simulation.compare import Group, WaitComparison


def in_words(comparison: WaitComparison) -> list[str]:
    """Return what the AI brings each group that it is meant for, and what it costs the others."""
    lines = [_gain(one) for one in comparison.groups if one.kind == "disease"]
    lines += [_cost(comparison, one) for one in comparison.groups if one.kind == "other"]
    lines.append(
        "Triage reads no study faster: what some gain, others wait. "
        "A study that the AI misses waits as one without a finding."
    )
    return lines


def _gain(group: Group) -> str:
    difference = group.difference_min
    who = f"Patients with {group.name}"
    if difference.high < 0:
        return (
            f"{who} are read {-difference.mean:.1f} min earlier on average "
            f"(95 % interval {-difference.high:.1f} to {-difference.low:.1f})."
        )
    if difference.low > 0:
        return (
            f"{who} wait {difference.mean:.1f} min longer on average "
            f"(95 % interval {difference.low:.1f} to {difference.high:.1f})."
        )
    return f"For {who[0].lower()}{who[1:]} no difference is shown."


def _cost(comparison: WaitComparison, group: Group) -> str:
    difference = group.difference_min
    if difference.low > 0:
        mean = (
            f"All others wait {difference.mean:.1f} min longer on average "
            f"(95 % interval {difference.low:.1f} to {difference.high:.1f})"
        )
    else:
        mean = "For all others no longer wait is shown on average"
    return (
        f"{mean}; {_misses(comparison, group)}. {100 * group.waits_longer:.0f} % of them wait "
        f"longer than without the AI, one in twenty by more than {group.longer_p95_min:.0f} min."
    )


def _misses(comparison: WaitComparison, group: Group) -> str:
    target = f"{comparison.scenario.target_min:g} min"
    late = 1000 * (group.without_ai.within_target.mean - group.with_ai.within_target.mean)
    if late < 0.5:
        return f"no fewer than before are read within {target}"
    return f"{late:.0f} in 1000 of them miss the target of {target} because of it"
