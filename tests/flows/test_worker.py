"""What a worker does beside analysing studies."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import pydicom
from sqlalchemy import select

from flows.steps import Step
from flows.worker import Worker
from tests.results.archive import scripted_archive
from tests.results.mail_server import mail_server
from tests.results.notifying import mail_at, settings_with
from tests.results.outbox_scenes import receive
from tests.results.outgoing import outgoing
from tests.results.scenes import write_chest
from tests.results.web_server import Reply, web_server
from tests.store.lived import add_runs, add_watched_model, every
from tests.store.notification_scenes import Ward
from tests.store.rows import received
from tests.tools import ManualClock
from triage.deidentification.pseudonyms import Pseudonyms, site_key
from triage.models.host import ModelHosts
from triage.settings import (
    FolderDestination,
    Settings,
    StowDestination,
    WatchSettings,
    WorkerSettings,
    load_settings,
)
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.model_tables import ModelAlertRow
from triage.store.remote_models import keep_returned, quarantine_reasons


async def test_a_worker_raises_alerts_about_live_models(
    sqlite_database: Database, files: InstanceFiles, clock: ManualClock, tmp_path: Path
) -> None:
    with sqlite_database.transaction() as session:
        model = add_watched_model(session, clock() - timedelta(days=1))
        add_runs(session, model, every(clock(), 20, timedelta(hours=1)), whole_s=200)
    settings = Settings(
        data_directory=tmp_path,
        worker=WorkerSettings(warm_models=False),
        watch=WatchSettings(interval_s=0.1),
    )
    hosts = ModelHosts(settings.worker)
    worker = Worker(Step("tests", settings, sqlite_database, files, hosts, clock))
    working = asyncio.create_task(worker.work())
    try:
        async with asyncio.timeout(60):
            while not raised(sqlite_database):
                await asyncio.sleep(0.05)
    finally:
        worker.stop()
        await working
        hosts.close()
    assert raised(sqlite_database) == ["slow"]


async def test_destinations_that_do_not_answer_hold_up_nobody_else(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    answers = threading.Event()
    with web_server() as server:
        server.usual = lambda _: Reply(waits_for=answers)
        mute = [
            StowDestination(name=f"mute-{n}", kind="stow", url=server.url)
            for n in range(33)  # more than asyncio's own threads on any machine
        ]
        folder = FolderDestination(name="share", kind="folder", path=share)
        out = outgoing(sqlite_database, tmp_path, clock, *mute, folder)
        settings = out.settings.model_copy(update={"worker": WorkerSettings(warm_models=False)})
        hosts = ModelHosts(settings.worker)
        worker = Worker(Step("tests", settings, sqlite_database, out.files, hosts, clock))
        working = asyncio.create_task(worker.work())
        try:
            async with asyncio.timeout(60):
                while len(list(share.rglob("*.dcm"))) < 2 or len(server.requests) < len(mute):
                    await asyncio.sleep(0.05)
                assert await asyncio.to_thread(clock) == clock.now  # a thread is left for flags
            assert out.states().count("delivered") <= 2
        finally:
            answers.set()
            worker.stop()
            await working
            hosts.close()


async def test_a_worker_tells_people_and_escalates_by_itself(
    sqlite_database: Database, files: InstanceFiles, clock: ManualClock, tmp_path: Path
) -> None:
    ward = Ward(sqlite_database, clock)
    with mail_server() as server:
        told = settings_with(mail_at(server.port, notices=()))
        settings = told.model_copy(
            update={"data_directory": tmp_path, "worker": WorkerSettings(warm_models=False)}
        )
        ward.settings = settings.notifications
        hosts = ModelHosts(settings.worker)
        worker = Worker(Step("tests", settings, sqlite_database, files, hosts, clock))
        working = asyncio.create_task(worker.work())
        try:
            async with asyncio.timeout(60):
                ward.flag()
                while len(server.messages) < 1:
                    await asyncio.sleep(0.05)
                clock.advance(600)
                while len(server.messages) < 2:
                    await asyncio.sleep(0.05)
        finally:
            worker.stop()
            await working
            hosts.close()
    people = ["ada@hospital.example", "grace@hospital.example"]
    assert [message["To"] for message in server.messages] == people


async def test_a_worker_asks_remote_models_and_takes_back_what_they_send(
    sqlite_database: Database, files: InstanceFiles, tmp_path: Path
) -> None:
    file = write_chest(tmp_path / "in")
    uid = str(pydicom.dcmread(file).SOPInstanceUID)
    with scripted_archive(called_ae_title="VENDOR") as vendor:
        remote = {"name": "vendor", "ae_title": "VENDOR", "host": "127.0.0.1", "port": vendor.port}
        model = {"name": "finder", "remote": "vendor", "accepts": {"modalities": ["DX"]}}
        settings = load_settings(
            data_directory=tmp_path,
            worker=WorkerSettings(warm_models=False),
            remotes=(remote,),
            remote_models=(model | {"results_from": "VENDOR"},),
        )
        hosts = ModelHosts(settings.worker)
        clock = ManualClock()
        receive(sqlite_database, file, clock)
        with sqlite_database.transaction() as session:
            keep_returned(session, received(clock(), study="2.25.9", calling_ae_title="VENDOR"))
        worker = Worker(Step("tests", settings, sqlite_database, files, hosts, clock))
        working = asyncio.create_task(worker.work())
        try:
            async with asyncio.timeout(60):
                while not (vendor.received and quarantined(sqlite_database)):
                    await asyncio.sleep(0.05)
        finally:
            worker.stop()
            await working
            hosts.close()
    pseudonyms = Pseudonyms(site_key(tmp_path), "remote model finder")
    assert vendor.received == [pseudonyms.uid(uid)]


def quarantined(database: Database) -> dict[str, int]:
    with database.reading() as session:
        return quarantine_reasons(session)


def raised(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(ModelAlertRow.rule)))
