"""The comparison as a picture: mean waits and intervals, and who is read within what time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triage.simulation.compare import Group, WaitComparison
from triage.simulation.scenario import ScenarioError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".svg", ".png", ".pdf")
_WITHOUT, _WITH = "#8a94a0", "#0a5db8"


def save_plot(comparison: WaitComparison, path: Path) -> None:
    """Write the picture; the ending of `path` says in which format.

    Raises:
        ScenarioError: the format is not known, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise ScenarioError(
            f"--plot: {path.name} has no known ending; use one of {', '.join(FORMATS)}", "plot"
        )
    import matplotlib as mpl  # noqa: PLC0415 (it takes a second)
    from matplotlib.figure import Figure  # noqa: PLC0415

    # A fixed salt and no date: the same comparison gives the same bytes.
    with mpl.rc_context(
        {"svg.hashsalt": "triage", "svg.fonttype": "none", "text.parse_math": False}
    ):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        means, shares = figure.subplots(1, 2, width_ratios=(5, 6))
        _plot_means(means, comparison)
        _plot_shares(shares, comparison)
        figure.suptitle(
            f"{comparison.scenario.name}: {comparison.studies} studies, readers "
            f"{100 * comparison.load:.0f} % busy"
        )
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, dpi=150, metadata=metadata)
        except OSError as error:
            raise ScenarioError(f"--plot: {path} cannot be written: {error.strerror}") from error


def shown_groups(comparison: WaitComparison) -> list[Group]:
    """Return the groups of the plot: those the AI is meant for, all others, and orders."""
    return [one for one in comparison.groups if one.kind in ("disease", "other", "order")]


def _plot_means(axes: Axes, comparison: WaitComparison) -> None:
    groups = shown_groups(comparison)
    for place, group in enumerate(groups):
        for shift, colour, label, waiting in (
            (-0.19, _WITHOUT, "without AI", group.without_ai),
            (0.19, _WITH, "with AI", group.with_ai),
        ):
            mean = waiting.mean_min
            axes.barh(
                place + shift,
                mean.mean,
                height=0.36,
                color=colour,
                xerr=[[mean.mean - mean.low], [mean.high - mean.mean]],
                label=label if place == 0 else None,
                error_kw={"elinewidth": 1},
            )
    axes.set_yticks(range(len(groups)), [one.name for one in groups])
    axes.invert_yaxis()
    axes.set_xlabel("mean wait, min (95 % interval)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_shares(axes: Axes, comparison: WaitComparison) -> None:
    styles = ("-", "--", "-.", ":")
    chosen = [one for one in comparison.groups if one.kind in ("disease", "other")][:4]
    for style, group in zip(styles, chosen, strict=False):
        for colour, said, waiting in (
            (_WITHOUT, "without AI", group.without_ai),
            (_WITH, "with AI", group.with_ai),
        ):
            shares = [100 * share for share in waiting.curve]
            axes.plot(
                comparison.curve_min, shares, style, color=colour, label=f"{group.name}, {said}"
            )
    axes.axvline(comparison.scenario.target_min, color="#b3231b", linewidth=1)
    axes.text(comparison.scenario.target_min, 2, " target", color="#b3231b")
    axes.set_ylim(0, 101)
    axes.set_xlim(0, comparison.curve_min[-1])
    axes.set_xlabel("wait, min")
    axes.set_ylabel("read within, % of the group")
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
