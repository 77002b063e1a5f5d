"""The path of a study, from the most urgent pending run to its place on the worklist."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from flows.steps import (
    Step,
    build_and_store_results,
    claim_most_urgent_run,
    complete_run,
    fail_run,
    infer,
    raise_priority,
    refuse_run,
)
from triage.core.analysis import AnalysisFailedError, InputRefusedError
from triage.store.runs import LeaseLostError


@flow(name="analyse-study", validate_parameters=False)
async def analyse_study() -> State:
    """Carry the most urgent pending run from its images to the flag and the results.

    A wake-up carries no identity: which run is the most urgent is known only when a worker has
    time for it. The flag is raised before the DICOM objects are built, so it waits for nothing.
    """
    step = Step.of_this_worker()
    run = await claim_most_urgent_run(step, flow_run_id=_flow_run_id())
    if run is None:
        return Completed(name="Idle", message="another worker was quicker")
    try:
        async with step.keeping_lease(run):
            analysis = await infer(step, run)
            said = await raise_priority(step, run, analysis)
            objects = await build_and_store_results(step, run, analysis)
            await complete_run(step, run, analysis, objects, said)
    except InputRefusedError as refusal:
        await refuse_run(step, run, str(refusal))
        return Completed(name="Not analysed", message=f"study {run.study_id}: {refusal}")
    except AnalysisFailedError as failure:
        await fail_run(step, run, failure)
        return Failed(message=f"study {run.study_id}: {failure}")
    except LeaseLostError as loss:
        return Completed(name="Superseded", message=str(loss))
    flagged = any(f.present for f in analysis.findings)
    return Completed(
        name="Flagged" if flagged else "Nothing found", message=f"study {run.study_id}: {said}"
    )


def _flow_run_id() -> str:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else ""
