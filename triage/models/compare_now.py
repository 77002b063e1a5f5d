"""Two versions on stored studies: from recorded runs, or run now, outside the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from triage.core.analysis import AnalysisFailedError, InputRefusedError
from triage.core.manifest import ModelManifest
from triage.core.studies import Study
from triage.models.compare import (
    Answer,
    Comparison,
    both_versions,
    compare_answers,
    newest_studies,
    recorded_answers,
)
from triage.models.held import held_study
from triage.models.host import ModelHosts
from triage.models.labelled import parse_cases
from triage.models.packages import ModelPackage
from triage.models.registry import find_package
from triage.models.stages import version_of
from triage.models.try_model import analyse_study
from triage.settings import Settings
from triage.store.code_approvals import check_code_approved
from triage.store.database import Database
from triage.store.files import InstanceFiles


def compare_now(
    store: Database,
    settings: Settings,
    wanted: tuple[str, str, str],
    *,
    most: int,
    since: datetime | None = None,
    labels: Mapping[str, Mapping[str, bool]] | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Comparison:
    """Compare two versions, given as (name, version, other version), on the newest studies.

    What either version did not analyse before is run now, in hosts of its own; nothing of it is
    recorded. A study that neither accepts is left out.

    Raises:
        StageError: there is no such version.
        PackageError: a package is no longer what was registered.
        CodeNotApprovedError: the code of one waits for approval.
    """
    name, version_a, version_b = wanted
    with store.reading() as session:
        rows = both_versions(session, name, version_a, version_b)
        studies = newest_studies(session, most, since)
        answers = [recorded_answers(session, row, studies) for row in rows]
        for row in rows:
            check_code_approved(session, row)
        packages = [find_package(session, name, row.version) for row in rows]
    hosts = ModelHosts(settings.worker, sandbox=settings.trust.sandbox)
    files = InstanceFiles(settings.data_directory)
    try:
        for number, uid in enumerate(studies, start=1):
            for package, of_version in zip(packages, answers, strict=True):
                if uid not in of_version:
                    with store.reading() as session:
                        content = held_study(session, files, uid)
                    if content is not None:
                        of_version[uid] = asyncio.run(_answer(hosts, package, content))
            on_progress(number, len(studies))
    finally:
        hosts.close()
    answered = [
        {uid: answer for uid, answer in of_version.items() if _is_wanted(uid, answers)}
        for of_version in answers
    ]
    return compare_answers(name, (version_a, answered[0]), (version_b, answered[1]), labels)


async def _answer(hosts: ModelHosts, package: ModelPackage, study: Study) -> Answer:
    try:
        analysis = await analyse_study(hosts, package, study)
    except InputRefusedError as error:
        return Answer({}, f"not analysed: {error}")
    except AnalysisFailedError as error:
        return Answer({}, f"failed: {error}")
    return Answer({finding.key: finding for finding in analysis.findings})


def _is_wanted(uid: str, answers: list[dict[str, Answer]]) -> bool:
    return any(uid in of_version and of_version[uid].findings for of_version in answers)


def truth_of(
    store: Database, labels_csv: Path, name: str, version: str
) -> dict[str, Mapping[str, bool]]:
    """Return the labels of a table by Study Instance UID.

    Raises:
        EvaluationError: the table is not one that `parse_cases` reads.
    """
    with store.reading() as session:
        manifest = ModelManifest.model_validate(version_of(session, name, version).manifest)
    lines = labels_csv.read_text(encoding="utf-8").splitlines()
    return {case.identifier: case.labels for case in parse_cases(lines, manifest)}
