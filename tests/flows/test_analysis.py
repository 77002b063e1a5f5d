"""The path of a study as its flow carries it, called without Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from flows.analysis import analyse_study
from flows.steps import Step
from tests.models.tiny import CRASH_HU, HANG_HU, make_segmentation
from tests.store.notification_scenes import settings_of
from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.core.notifications import NotificationState
from triage.core.priority import Priority
from triage.core.progress import RunStep
from triage.core.runs import RunState
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage, load_package
from triage.results.delivery.rounds import queue_notices
from triage.settings import (
    DicomDestination,
    FolderDestination,
    Settings,
    WebhookDestination,
    WorkerSettings,
)
from triage.store.database import Database
from triage.store.delivery_decisions import Decision
from triage.store.files import InstanceFiles
from triage.store.model_tables import ModelRow
from triage.store.notification_tables import NotificationRow
from triage.store.runs import recover_expired_leases
from triage.store.study_actions import cancel_run
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    FindingRow,
    InstanceRow,
    ResultObjectRow,
    StudyEventRow,
    StudyRow,
)
from triage.worklist.queue import reading_list
from triage.worklist.reading import mark_as_read

Row = TypeVar("Row")
LESION_HU = 170
RULES = [{"name": "critical", "priorities": [], "steps": [{"to": ["ada"]}]}]
ARCHIVE = DicomDestination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=104)


@pytest.fixture(scope="module")
def hosts() -> Iterator[ModelHosts]:
    """Warm hosts for the tests of this module."""
    hosts = ModelHosts(WorkerSettings(device="cpu"))
    yield hosts
    hosts.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A bundle that marks what is brighter than 100 HU, and misbehaves on request."""
    folder = tmp_path_factory.mktemp("registry") / "tiny"
    return make_segmentation(folder, results={"objects": ["seg", "sr"]})


@pytest.fixture
def hospital(sqlite_database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """A hospital whose database the flow works on."""
    return Hospital(sqlite_database, files, clock)


@pytest.fixture
def step(hospital: Hospital, hosts: ModelHosts, tmp_path: Path) -> Step:
    """What the flow needs, with an archive that results are to be delivered to."""
    step = Step(
        worker="tests",
        settings=Settings(
            data_directory=tmp_path,
            worker=WorkerSettings(maximum_attempts=2),
            destinations=(ARCHIVE,),
        ),
        database=hospital.database,
        files=hospital.files,
        hosts=hosts,
        clock=hospital.clock,
    )
    step.become_worker()
    return step


def register(hospital: Hospital, package: ModelPackage, stage: str = "production") -> None:
    """Register the package as `triage prepare` does."""
    with hospital.database.transaction() as session:
        session.add(
            ModelRow(
                name=package.manifest.name,
                version=package.manifest.version,
                stage=stage,
                manifest=package.manifest.model_dump(mode="json"),
                package_path=str(package.path),
                package_sha256=package.sha256,
                registered_at=hospital.clock(),
            )
        )


def head_ct(hospital: Hospital, brightest_hu: float = LESION_HU) -> list[Dataset]:
    """Return a block of tissue in air, with a lesion of `brightest_hu`."""
    images = hospital.head_ct(slices=6, rows=64)
    for number, image in enumerate(images):
        values = np.full((64, 64), -1000)
        values[8:-8, 8:-8] = 40
        if number in {2, 3}:
            values[20:30, 20:30] = brightest_hu
        image.PixelData = (values + 1024).astype("<u2").tobytes()
    return images


def queued(hospital: Hospital, package: ModelPackage, brightest_hu: float = LESION_HU) -> str:
    """Receive a study and let it be complete; its run waits."""
    register(hospital, package)
    study_uid = hospital.receive(*head_ct(hospital, brightest_hu))
    hospital.complete(study_uid)
    return study_uid


def rows(hospital: Hospital, table: type[Row]) -> list[Row]:
    """Return all rows of a table."""
    with hospital.database.reading() as session:
        return list(session.scalars(select(table)).unique())


def texts(hospital: Hospital, kind: str) -> list[str]:
    """Return the lines of a kind in the history."""
    return [e.text for e in rows(hospital, StudyEventRow) if e.kind == kind]


async def test_bleeding_study_ends_flagged_with_its_objects_on_the_way(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    queued(hospital, package)

    state = await analyse_study.fn()

    assert (state.name, state.is_completed()) == ("Flagged", True)
    (study,) = rows(hospital, StudyRow)
    assert (study.priority, study.order_priority) == (Priority.STAT, Priority.ROUTINE)
    assert "tiny-segmentation 1.0.0" in study.ai_reason
    assert [r.state for r in rows(hospital, AnalysisRunRow)] == [RunState.COMPLETED]
    assert [o.role for o in rows(hospital, ResultObjectRow)] == ["seg", "sr"]
    assert [d.destination for d in rows(hospital, DeliveryRow)] == ["archive", "archive"]


async def test_a_run_keeps_what_kind_of_images_went_in_and_no_identifier(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    register(hospital, package)
    images = head_ct(hospital)
    for image in images:
        image.PatientSex, image.PatientBirthDate = "F", "19590301"
        image.ManufacturerModelName = "A 64"
    hospital.complete(hospital.receive(*images))
    await analyse_study.fn()
    (run,) = rows(hospital, AnalysisRunRow)
    kept = run.input_characteristics
    assert kept["scanner"] == "A 64"
    assert (kept["age"], kept["sex"], kept["modality"]) == ("60-69", "F", "CT")
    assert (kept["images"], kept["slice_thickness_mm"], kept["slice_distance_mm"]) == (6, 5, 5)
    assert -1000 < kept["values_mean"] < 0
    assert kept["values_p95"] == 40
    said = repr(kept)
    assert not any(secret in said for secret in ("SYN-", "Synthetic^", "19590301", "1.2."))


async def test_state_names_the_study_by_number_and_no_patient(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    queued(hospital, package)
    state = await analyse_study.fn()
    assert state.message is not None
    assert state.message.startswith("study 1: Hemorrhage, ")
    assert "Synthetic" not in state.message
    assert "SYN-" not in state.message


async def test_study_without_a_finding_keeps_its_place(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    queued(hospital, package, brightest_hu=60)
    state = await analyse_study.fn()
    assert state.name == "Nothing found"
    (study,) = rows(hospital, StudyRow)
    assert (study.priority, study.ai_priority) == (Priority.ROUTINE, None)


async def test_shadow_run_touches_neither_worklist_nor_archive(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    register(hospital, package, stage="shadow")
    hospital.complete(hospital.receive(*head_ct(hospital)))
    await analyse_study.fn()
    (study,) = rows(hospital, StudyRow)
    assert (study.priority, study.ai_priority) == (Priority.ROUTINE, None)
    assert [f.present for f in rows(hospital, FindingRow)] == [True]
    assert rows(hospital, DeliveryRow) == []
    assert rows(hospital, ResultObjectRow) == []
    held = {instance.path for instance in rows(hospital, InstanceRow)}
    assert len(held) == len(list(hospital.files.root.rglob("*.dcm")))  # nor left a file


async def test_broken_images_are_a_stated_refusal_and_no_retry(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    register(hospital, package)
    images = head_ct(hospital)
    images[3].PixelData = images[3].PixelData[:100]
    hospital.complete(hospital.receive(*images))

    state = await analyse_study.fn()

    assert state.name == "Not analysed"
    (run,) = rows(hospital, AnalysisRunRow)
    assert run.state is RunState.REFUSED
    assert str(images[3].SOPInstanceUID) in run.reason
    assert rows(hospital, StudyRow)[0].priority is Priority.ROUTINE


async def test_a_refused_run_keeps_what_kind_of_images_it_refused(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    register(hospital, package)
    images = head_ct(hospital)
    images[2].PixelData = images[2].PixelData[:100]
    hospital.complete(hospital.receive(*images))
    await analyse_study.fn()
    (run,) = rows(hospital, AnalysisRunRow)
    assert run.state is RunState.REFUSED
    assert run.input_characteristics["images"] == 6
    assert "values_mean" not in run.input_characteristics


async def test_model_that_crashes_is_tried_again_and_then_stated_as_failed(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    queued(hospital, package, brightest_hu=CRASH_HU)

    assert (await analyse_study.fn()).is_failed()
    assert rows(hospital, AnalysisRunRow)[0].state is RunState.PENDING
    hospital.clock.advance(10)
    assert (await analyse_study.fn()).is_failed()

    (run,) = rows(hospital, AnalysisRunRow)
    assert (run.state, run.attempts) == (RunState.FAILED, 2)
    (failed,) = texts(hospital, "failed")
    assert failed.endswith("(2 attempts)")
    assert rows(hospital, StudyRow)[0].priority is Priority.ROUTINE


async def test_model_that_hangs_is_stopped(hospital: Hospital, step: Step, tmp_path: Path) -> None:
    slow = make_segmentation(tmp_path / "slow")
    text = (slow.path / "model.yaml").read_text().replace("time_limit_s: 60", "time_limit_s: 1")
    (slow.path / "model.yaml").write_text(text)
    queued(hospital, load_package(slow.path), brightest_hu=HANG_HU)

    state = await asyncio.wait_for(analyse_study.fn(), 60)

    assert state.is_failed()
    assert "longer than 1 s" in str(state.message)


async def test_run_that_is_cancelled_while_its_model_computes_is_stopped_and_study_stays(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    queued(hospital, package, brightest_hu=HANG_HU)
    carrying = asyncio.create_task(analyse_study.fn())
    while rows(hospital, AnalysisRunRow)[0].state is not RunState.RUNNING:
        await asyncio.sleep(0.05)
    while step.progress[1].step is not RunStep.INFER:
        await asyncio.sleep(0.05)
    with hospital.database.transaction() as session:
        cancel_run(session, 1, Decision("Administrator", hospital.clock(), "it hangs"))

    state = await asyncio.wait_for(carrying, 30)  # its limit is 60 s

    assert state.name == "Superseded"
    assert step.progress == {}
    (run,) = rows(hospital, AnalysisRunRow)
    assert (run.state, run.reason) == (RunState.CANCELLED, "cancelled by Administrator: it hangs")
    assert (await analyse_study.fn()).name == "Idle"
    with hospital.database.reading() as session:
        (entry,) = reading_list(session, hospital.clock())
    assert "not analysed: cancelled by Administrator: it hangs" in entry.status.text


async def test_package_that_changed_after_registration_is_not_run(
    hospital: Hospital, step: Step, tmp_path: Path
) -> None:
    changed = make_segmentation(tmp_path / "changed")
    queued(hospital, changed)
    (changed.path / "README").write_text("one more file")

    state = await analyse_study.fn()

    assert state.is_failed()
    assert "model unavailable" in str(state.message)


async def test_run_done_again_after_a_crash_flags_once_and_leaves_one_set_of_objects(
    hospital: Hospital, step: Step, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(hospital, package)

    async def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flows.analysis.build_and_store_results", crash)
        with pytest.raises(KeyboardInterrupt):
            await analyse_study.fn()
    assert rows(hospital, AnalysisRunRow)[0].state is RunState.RUNNING
    hospital.clock.advance(step.settings.worker.lease_s + 1)
    with hospital.database.transaction() as session:
        recover_expired_leases(session, maximum_attempts=2, now=hospital.clock())
    await analyse_study.fn()

    assert len(texts(hospital, "flagged")) == 1
    assert len(rows(hospital, FindingRow)) == 1
    assert [o.role for o in rows(hospital, ResultObjectRow)] == ["seg", "sr"]


async def test_flag_makes_one_notification_also_when_the_run_is_done_again(
    hospital: Hospital, step: Step, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(hospital, package)
    with_rules = {"notifications": settings_of(recipients=[{"name": "ada"}], rules=RULES)}
    replace(step, settings=step.settings.model_copy(update=with_rules)).become_worker()

    async def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flows.analysis.build_and_store_results", crash)
        with pytest.raises(KeyboardInterrupt):
            await analyse_study.fn()
    assert len(rows(hospital, NotificationRow)) == 1
    hospital.clock.advance(step.settings.worker.lease_s + 1)
    with hospital.database.transaction() as session:
        recover_expired_leases(session, maximum_attempts=2, now=hospital.clock())
    await analyse_study.fn()
    [notification] = rows(hospital, NotificationRow)
    assert notification.said in rows(hospital, StudyRow)[0].ai_reason
    assert notification.state is NotificationState.PENDING


async def test_flow_that_finds_nothing_to_do_is_idle(step: Step) -> None:
    assert (await analyse_study.fn()).name == "Idle"


async def test_images_that_were_purged_are_a_stated_refusal(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    queued(hospital, package)
    with hospital.database.transaction() as session:
        session.execute(update(InstanceRow).values(purged_at=hospital.clock(), path=""))

    state = await analyse_study.fn()

    assert state.name == "Not analysed"
    (run,) = rows(hospital, AnalysisRunRow)
    assert run.state is RunState.REFUSED
    assert "were purged" in run.reason


async def test_study_of_a_parked_model_stays_on_the_worklist_and_says_why(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    limits = WorkerSettings(maximum_attempts=1, breaker_failures=1, breaker_pause_s=60)
    step = replace(step, settings=step.settings.model_copy(update={"worker": limits}))
    step.become_worker()
    queued(hospital, package, brightest_hu=CRASH_HU)
    assert (await analyse_study.fn()).is_failed()
    later = hospital.receive(*head_ct(hospital))
    hospital.complete(later)

    assert (await analyse_study.fn()).name == "Idle"
    with hospital.database.reading() as session:
        entries = {e.study_instance_uid: e for e in reading_list(session, hospital.clock())}
    assert len(entries) == 2
    assert entries[later].status.text.startswith("not analysed: model unavailable, because tiny-")

    hospital.clock.advance(60)
    assert (await analyse_study.fn()).name == "Flagged"
    assert rows(hospital, ModelRow)[0].parked_until is None


async def test_results_that_cannot_be_built_do_not_count_against_the_model(
    hospital: Hospital, step: Step, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("flows.steps.store_results", full)
    queued(hospital, package)
    assert (await analyse_study.fn()).is_failed()
    assert rows(hospital, StudyRow)[0].priority is Priority.STAT
    assert rows(hospital, ModelRow)[0].failures_in_a_row == 0


_ROUTES: dict[str, dict[str, Any]] = {
    "all": {},
    "model": {"models": ["tiny-segmentation"]},
    "other-model": {"models": ["tiny-classifier"]},
    "production": {"stages": ["production"]},
    "canary": {"stages": ["canary"]},
    "finding": {"findings": ["fracture", "hemorrhage"]},
    "other-finding": {"findings": ["fracture"]},
    "modality": {"modalities": ["MR", "CT"]},
    "other-modality": {"modalities": ["MR"]},
    "sender": {"senders": ["CT1 "]},
    "other-sender": {"senders": ["CT2"]},
    "unread": {"study_stages": ["unread"]},
    "read": {"study_stages": ["read"]},
    "arriving": {"study_stages": ["arriving"]},
    "two-conditions": {"models": ["tiny-segmentation"], "modalities": ["MR"]},
}


def with_routes(step: Step, **chosen: dict[str, Any]) -> Step:
    """Return the step with a destination of objects and one of notices for each route."""
    destinations = [
        destination
        for name, route in chosen.items()
        for destination in (
            FolderDestination.model_validate(
                {"name": name.replace("_", "-"), "kind": "folder", "path": "/x", "route": route}
            ),
            WebhookDestination.model_validate(
                {
                    "name": f"{name.replace('_', '-')}-told",
                    "kind": "webhook",
                    "url": "http://ris.example",
                    "secret": "0123456789abcdef",
                    "route": route,
                }
            ),
        )
    ]
    settings = step.settings.model_copy(update={"destinations": tuple(destinations)})
    routed = replace(step, settings=settings)
    routed.become_worker()
    return routed


def reached(hospital: Hospital) -> dict[str, list[str]]:
    """Return what was queued for whom."""
    with hospital.database.reading() as session:
        found: dict[str, list[str]] = {}
        for row in session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)):
            what = row.result_object.role if row.result_object else row.kind.value
            found.setdefault(row.destination, []).append(what)
        return found


async def test_results_and_changes_of_priority_go_where_their_route_leads(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    step = with_routes(step, **_ROUTES)
    queued(hospital, package)
    await analyse_study.fn()
    queue_notices(step.database, step.settings, step.clock)
    taken = ("all", "model", "production", "finding", "modality", "sender", "unread")
    assert reached(hospital) == {
        **{name: ["seg", "sr"] for name in taken},
        **{f"{name}-told": ["result", "priority"] for name in taken},
    }


async def test_a_canary_s_results_of_a_study_that_was_read_go_by_stage(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    step = with_routes(step, **_ROUTES)
    register(hospital, package, stage="canary")
    with hospital.database.transaction() as session:
        session.execute(update(ModelRow).values(share=1.0))
    uid = hospital.receive(*head_ct(hospital, brightest_hu=60))
    hospital.complete(uid)
    with hospital.database.transaction() as session:
        mark_as_read(session, uid, now=hospital.clock())
    await analyse_study.fn()
    taken = ("all", "model", "canary", "modality", "sender", "read")
    assert reached(hospital) == {
        **{name: ["seg", "sr"] for name in taken},
        **{f"{name}-told": ["result"] for name in taken},
    }


async def test_objects_and_notices_are_chosen_by_kind(
    hospital: Hospital, step: Step, package: ModelPackage
) -> None:
    folder = FolderDestination(name="reports", kind="folder", path="/x", objects=("sr",))
    hook = WebhookDestination(
        name="told",
        kind="webhook",
        url="http://ris.example",
        secret="0123456789abcdef",
        notices=("priority",),
    )
    settings = step.settings.model_copy(update={"destinations": (folder, hook)})
    step = replace(step, settings=settings)
    step.become_worker()
    queued(hospital, package)
    await analyse_study.fn()
    queue_notices(step.database, step.settings, step.clock)
    assert reached(hospital) == {"reports": ["sr"], "told": ["priority"]}
