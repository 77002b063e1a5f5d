"""What triage by AI would bring: a page that simulates the reading room, and the same as JSON.

Nothing is stored, and no patient is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from triage.core.permissions import Permission
from triage.simulation.compare import Group, WaitComparison
from triage.simulation.history import Fit, fit_scenario
from triage.simulation.scenario import HOURS, Scenario, ScenarioError, scenario_of
from triage.simulation.wording import in_words
from triage.store.reading_history import reading_history
from triage.web.access import may
from triage.web.charts import Chart, Line, chart
from triage.web.context import Context, WebContext
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.rendering import templates
from triage.web.security import require_same_origin
from triage.web.simulating import MOST_STUDIES

api_router = APIRouter(
    prefix="/api/v1", tags=["simulations"], dependencies=[Depends(may(Permission.SEE_OPERATIONS))]
)
page_router = APIRouter(
    include_in_schema=False, dependencies=[Depends(may(Permission.SEE_OPERATIONS))]
)

_SAME_ORIGIN = [Depends(require_same_origin)]
_PLAYED: dict[int | str, dict[str, Any]] = {
    422: {"model": Refusal, "description": "A field of the scenario is wrong; `field` says which."},
    503: {"model": Refusal, "description": "Other simulations are under way; try again."},
}
_REPLICATIONS, _MOST_DAYS, _WARM_UP_DAYS = 10, 30, 1
Percent = Annotated[float, Field(ge=0, le=100)]


def _parsed(value: object) -> object:
    """Let a wrong scenario be refused in the words of `ScenarioError`, with its field."""
    try:
        return scenario_of(value)
    except ScenarioError as error:
        raise RefusedRequestError(422, str(error), error.field) from error


class Simulation(BaseModel):
    """A scenario to be played; the same seed gives the same figures."""

    model_config = ConfigDict(extra="forbid")

    scenario: Annotated[Scenario, BeforeValidator(_parsed)] = Scenario()
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1


class NoteView(BaseModel):
    """Where a field of a scenario comes from: history, or an assumption."""

    field: str
    text: str
    is_known: bool


class FitView(BaseModel):
    """A scenario of what this installation saw, to be played or changed first."""

    scenario: Scenario
    notes: tuple[NoteView, ...]


@api_router.post("/simulations", dependencies=_SAME_ORIGIN, responses=_PLAYED)
async def simulate(asked: Simulation, context: Context) -> WaitComparison:
    """Play a scenario with and without the AI; nothing is kept.

    At most 100 000 studies are played; `triage simulate` plays more.
    """
    return await context.simulations.play(asked.scenario, asked.seed)


@api_router.get("/simulations/history", responses={422: _PLAYED[422]})
def history(
    context: Context,
    days: Annotated[int, Query(ge=1, le=366)] = 30,
    readers: Annotated[int | None, Query(ge=1, le=200)] = None,
) -> FitView:
    """Give the scenario that the last days come to, and what was assumed."""
    fit = _fit(context, days, readers)
    notes = tuple(NoteView(**vars(note)) for note in fit.notes)
    return FitView(scenario=fit.scenario, notes=notes)


def _fit(context: WebContext, days: int, readers: int | None) -> Fit:
    minimum = context.settings.watch.minimum_judged
    with context.database.reading() as session:
        seen = reading_history(session, days, minimum_judged=minimum, now=context.now())
    try:
        return fit_scenario(seen, readers=readers)
    except ScenarioError as error:
        raise RefusedRequestError(422, str(error), error.field) from error


class Room(BaseModel):
    """The form of the page, in the words of the page. Shares are in percent."""

    model_config = ConfigDict(extra="forbid")

    arrivals_per_hour: Annotated[float, Field(gt=0, le=60)] = 9.6
    readers: Annotated[int, Field(ge=1, le=20)] = 2
    reading_min: Annotated[float, Field(gt=0, le=120)] = 10
    stat: Percent = 5
    interrupting_from: Literal["", "stat", "high"] = ""
    target_min: Annotated[float, Field(gt=0, le=1440)] = 30
    finding: Annotated[str, Field(min_length=1, max_length=64)] = "hemorrhage"
    prevalence: Percent = 10
    sensitivity: Percent = 90
    specificity: Percent = 90
    raises_to: Literal["high", "stat"] = "high"
    turnaround_min: Annotated[float, Field(ge=0, le=1440)] = 3

    def scenario(self) -> Scenario:
        """Return the scenario, of as many days as a page may play.

        Raises:
            ScenarioError: a field is wrong, or the readers cannot keep up.
        """
        ai = {
            "sensitivity": self.sensitivity / 100,
            "specificity": self.specificity / 100,
            "raises_to": self.raises_to,
            "turnaround": {"mean_min": self.turnaround_min},
        }
        disease = {"name": self.finding, "prevalence": self.prevalence / 100, "ai": ai}
        kind = {
            "name": "studies",
            "reading": {"mean_min": self.reading_min},
            "diseases": [disease],
        }
        orders = [("stat", self.stat / 100), ("routine", 1 - self.stat / 100)]
        return scenario_of(
            {
                "name": "This reading room",
                "arrivals_per_hour": self.arrivals_per_hour,
                "readers": self.readers,
                "orders": [{"priority": name, "share": share} for name, share in orders if share],
                "studies": [kind],
                "interrupting_from": self.interrupting_from or None,
                "target_min": self.target_min,
                **_extent(self.arrivals_per_hour * HOURS),
            }
        )


class Past(BaseModel):
    """The other form of the page: this installation as it was, and who read there."""

    model_config = ConfigDict(extra="forbid")

    history_days: Annotated[int, Field(ge=1, le=366)]
    history_readers: Annotated[int, Field(ge=1, le=200)] | None = None


def _extent(studies_per_day: float) -> dict[str, int]:
    """Return for how long and how often so many studies a day may be played.

    Where many come, a day is played less often rather than not at all.
    """
    least_days = 1 + 2 * _WARM_UP_DAYS
    playable_days = 0.9 * MOST_STUDIES / studies_per_day
    replications = max(2, min(_REPLICATIONS, int(playable_days / least_days)))
    days = int(playable_days / replications) - 2 * _WARM_UP_DAYS
    return {
        "days": max(1, min(days, _MOST_DAYS)),
        "warm_up_days": _WARM_UP_DAYS,
        "replications": replications,
    }


@dataclass(frozen=True)
class Shown:
    """What the page shows beside its form."""

    comparison: WaitComparison
    sentences: list[str]
    charts: list[Chart]


@page_router.get("/simulation")
def simulation_page(request: Request) -> Response:
    """Show the form with values to begin with."""
    return _page(request, Room().model_dump())


@page_router.post("/simulation", dependencies=_SAME_ORIGIN)
async def simulate_on_page(request: Request, context: Context) -> Response:
    """Play what the form says, or what this installation saw, and show what comes of it."""
    async with request.form(max_files=0, max_fields=40) as form:
        given = {name: str(value).strip() for name, value in form.items()}
    try:
        if "history_days" in given:
            past = Past.model_validate({name: text for name, text in given.items() if text})
            fit = await run_in_threadpool(_fit, context, past.history_days, past.history_readers)
            scenario = fit.scenario.model_copy(update=_extent(sum(fit.scenario.hourly_arrivals)))
            shown = _shown(await context.simulations.play(scenario))
            return _page(request, Room().model_dump(), shown=shown, fit=fit)
        shown = _shown(await context.simulations.play(Room.model_validate(given).scenario()))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        return _page(request, given, wrong=f"{_label(wrong['loc'])}: {wrong['msg']}", status=422)
    except ScenarioError as error:
        return _page(request, given, wrong=str(error), status=422)
    except HTTPException as error:
        return _page(request, given, wrong=str(error.detail), status=error.status_code)
    return _page(request, given, shown=shown)


def _label(place: tuple[int | str, ...]) -> str:
    return str(place[-1]).removesuffix("_min").replace("_", " ") if place else "form"


def _page(
    request: Request,
    room: dict[str, Any],
    *,
    shown: Shown | None = None,
    fit: Fit | None = None,
    wrong: str = "",
    status: int = 200,
) -> Response:
    room = {**Room().model_dump(), **room}
    content = {"room": room, "shown": shown, "fit": fit, "wrong": wrong}
    return templates.TemplateResponse(request, "simulation.html", content, status)


def _shown(comparison: WaitComparison) -> Shown:
    groups = [one for one in comparison.groups if one.kind in ("disease", "other")]
    return Shown(
        comparison=comparison,
        sentences=in_words(comparison),
        charts=[_curves(comparison, one) for one in groups],
    )


def _curves(comparison: WaitComparison, group: Group) -> Chart:
    """Return who of a group is read within what time."""
    target = f"{comparison.scenario.target_min:g} min"
    places = len(comparison.curve_min)
    fifth = (places - 1) // 4
    title = f"Patients with {group.name}" if group.kind == "disease" else "All other patients"
    return chart(
        title,
        [
            Line("without AI", "warn", group.without_ai.curve),
            Line("with AI", "accent", group.with_ai.curve),
        ],
        y_title="read within",
        x_title="wait, min",
        places=places,
        x_labels={n: f"{comparison.curve_min[n]:.0f}" for n in range(0, places, fifth)},
        percent=True,
        summary=f"Within {target}: {_percent(group.without_ai.within_target.mean)} without, "
        f"{_percent(group.with_ai.within_target.mean)} with AI.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
