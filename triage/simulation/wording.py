"""What a comparison says, in sentences: who gains, and who waits longer for it."""

from __future__ import annotations

from triage.simulation.compare import Comparison, Group


def in_words(comparison: Comparison) -> list[str]:
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


def _cost(comparison: Comparison, group: Group) -> str:
    difference = group.difference_min
    late = 1000 * (group.without_ai.within_target.mean - group.with_ai.within_target.mean)
    target = f"{comparison.scenario.target_min:g} min"
    changed = (
        f"{late:.0f} in 1000 of them miss the target of {target} because of it"
        if late >= 0.5
        else f"about as many as before are read within {target}"
    )
    return (
        f"All others wait {abs(difference.mean):.1f} min "
        f"{'longer' if difference.mean >= 0 else 'less'} on average "
        f"(95 % interval {difference.low:+.1f} to {difference.high:+.1f}); {changed}. "
        f"{100 * group.waits_longer:.0f} % of them wait longer than without the AI, one in twenty "
        f"by more than {group.longer_p95_min:.0f} min."
    )
