"""`triage simulate`: what triage by AI would bring this reading room, and whom it would cost."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress
from rich.table import Table

from triage.commands.console import out

if TYPE_CHECKING:
    from triage.simulation.compare import Estimate, Group, WaitComparison
    from triage.simulation.history import Fit
    from triage.simulation.scenario import Scenario

MOST_STUDIES = 5_000_000


@click.command("simulate")
@click.argument(
    "scenario_file", metavar="[SCENARIO]", required=False, type=click.Path(path_type=Path)
)
@click.option(
    "--from-history",
    type=click.IntRange(1, 366),
    metavar="DAYS",
    help="Take the scenario from what this installation saw in the last DAYS.",
)
@click.option("--readers", type=click.IntRange(1, 200), help="How many read, instead.")
@click.option("--replications", type=click.IntRange(2, 1000), help="How often it is played.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=1,
    show_default=True,
    help="The same seed gives the same figures.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Write a picture: .svg, .png or .pdf."
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--example", is_flag=True, help="Print a scenario to begin with.")
@click.option(
    "--show-scenario", is_flag=True, help="Print the scenario as JSON instead of playing it."
)
def simulate(
    scenario_file: Path | None,
    *,
    from_history: int | None,
    readers: int | None,
    replications: int | None,
    seed: int,
    plot: Path | None,
    as_json: bool,
    example: bool,
    show_scenario: bool,
) -> None:
    """Read the same simulated studies with and without triage by AI, and say what is different.

    SCENARIO is a TOML or JSON file; `--example` prints one. Without it a small default is played.
    """
    from triage.simulation.compare import compare
    from triage.simulation.plot import save_plot

    if example:
        from triage.simulation.scenario import example_scenario

        click.echo(example_scenario(), nl=False)
        return
    if scenario_file is not None and from_history is not None:
        raise click.UsageError("give a SCENARIO or --from-history, not both")
    scenario, fit = _scenario(scenario_file, from_history, readers, replications)
    if fit is not None:
        _show_fit(fit)
    if show_scenario:
        click.echo(scenario.model_dump_json(indent=2))
        return
    with Progress(console=out, transient=True, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("reading", total=scenario.replications)
        comparison = compare(
            scenario,
            seed=seed,
            most_studies=MOST_STUDIES,
            progress=lambda done: progress.update(task, completed=done),
        )
    if plot is not None:
        save_plot(comparison, plot)
    if as_json:
        click.echo(comparison.model_dump_json(indent=2))
    else:
        _show(comparison)


def _scenario(
    path: Path | None, days: int | None, readers: int | None, replications: int | None
) -> tuple[Scenario, Fit | None]:
    from triage.simulation.scenario import Scenario, load_scenario, scenario_of

    fit = None
    if days is not None:
        fit = _fit(days, readers)
        scenario = fit.scenario
    else:
        scenario = load_scenario(path) if path is not None else Scenario()
    changes: dict[str, object] = {"readers": readers, "replications": replications}
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes:
        scenario = scenario_of({**scenario.model_dump(mode="json"), **changes})
    return scenario, fit


def _fit(days: int, readers: int | None) -> Fit:
    from triage.commands.store import opened_store
    from triage.settings import load_settings
    from triage.simulation.history import fit_scenario
    from triage.store.reading_history import reading_history

    settings = load_settings()
    with opened_store(settings) as store, store.reading() as session:
        history = reading_history(
            session, days, minimum_judged=settings.watch.minimum_judged, now=datetime.now(UTC)
        )
    return fit_scenario(history, readers=readers)


def _show_fit(fit: Fit) -> None:
    for note in fit.notes:
        mark = "history" if note.is_known else "assumed"
        # On standard error, so that --json stays JSON.
        click.echo(f"{mark}: {note.field}: {note.text}", err=True)


def _show(comparison: WaitComparison) -> None:
    from triage.simulation.wording import in_words

    scenario = comparison.scenario
    out.print(
        f"{scenario.name}: {comparison.studies} studies in {scenario.replications} replications, "
        f"readers {100 * comparison.load:.0f} % busy, target {scenario.target_min:g} min",
        highlight=False,
    )
    table = Table(
        "who", "share", "wait without AI", "with AI", "difference", "in target without", "with"
    )
    for group in comparison.groups:
        table.add_row(*_row(group))
    out.print(table)
    out.print("Waits are means in minutes with 95 % intervals.", highlight=False)
    for line in in_words(comparison):
        out.print(line, highlight=False)


def _row(group: Group) -> tuple[str, ...]:
    return (
        group.name,
        f"{100 * group.share:.1f} %",
        _minutes(group.without_ai.mean_min),
        _minutes(group.with_ai.mean_min),
        _minutes(group.difference_min, sign=True),
        f"{100 * group.without_ai.within_target.mean:.1f} %",
        f"{100 * group.with_ai.within_target.mean:.1f} %",
    )


def _minutes(one: Estimate, *, sign: bool = False) -> str:
    shape = "+.1f" if sign else ".1f"
    # Adding 0 makes a rounded -0.0 a 0.0.
    mean, low, high = (
        f"{round(value, 1) + 0.0:{shape}}" for value in (one.mean, one.low, one.high)
    )
    return f"{mean} ({low} to {high})"
