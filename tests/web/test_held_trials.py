"""A trial on a study that Triage holds: findings for engineers, images for who sees patients."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from tests.web.access import HTML, OURS, add_account, log_in, pages, trail
from tests.web.hospital import Hospital
from tests.web.packages import NAME, register_versions
from triage.core.audit import AuditKind
from triage.core.jobs import JobState, Tried, TriedFinding
from triage.core.permissions import Role
from triage.core.stages import Stage
from triage.store.job_files import JobFolder
from triage.store.model_jobs import find_job

TRY = f"/api/v1/models/{NAME}/versions/1.0.0/try"
OUTCOME = Tried(
    model="a 1.0.0",
    notice="",
    findings=(TriedFinding(key="bleed", present=True, confidence=0.97, text="Hemorrhage, 12 mL"),),
    remarks=("a remark of Doe",),
    timings_s={"infer": 1.0},
    pictures=("key.png",),
    objects=("sr.dcm",),
)


def tried(client: TestClient, hospital: Hospital, uid: str) -> int:
    """Ask for a trial, let it be done with a picture and a report, and return its number."""
    answer = client.post(TRY, data={"study": uid}, headers=OURS)
    assert answer.status_code == 202, answer.text
    job_id = int(answer.json()["job_id"])
    with hospital.database.transaction() as session:
        row = find_job(session, job_id)
        folder = JobFolder.of(hospital.files.root.parent, row.folder)
        folder.out.mkdir()
        for name in (*OUTCOME.pictures, *OUTCOME.objects):
            (folder.out / name).write_bytes(b"Doe^Jane")
        row.state, row.outcome = JobState.DONE, OUTCOME.model_dump(mode="json")
        row.reason = "the series of Doe"
    return job_id


def test_engineer_sees_findings_and_only_who_sees_patients_the_images(
    hospital: Hospital, tmp_path: Path
) -> None:
    register_versions(
        hospital.database, hospital.clock, tmp_path / "registry", {"1.0.0": Stage.PRODUCTION}
    )
    uid = hospital.receive(*hospital.head_ct(slices=1, rows=16))
    add_account(hospital, "eng", Role.ML_ENGINEER)
    add_account(hospital, "both", Role.ML_ENGINEER, Role.RADIOLOGIST)
    with pages(hospital) as of_eng, pages(hospital) as of_both:
        log_in(of_eng, "eng")
        log_in(of_both, "both")
        job_id = tried(of_eng, hospital, uid)
        [asked, *_] = [one.event for one in trail(of_eng) if one.event.who == "eng"]
        assert asked.study_instance_uid == uid
        looks = [
            of_eng.get("/api/v1/model-jobs").text,
            of_eng.get(f"/api/v1/model-jobs/{job_id}").text,
            of_eng.post(f"/api/v1/model-jobs/{job_id}/cancel", headers=OURS).text,
            of_eng.get("/model-jobs", headers=HTML).text,
            of_eng.get(f"/model-jobs/{job_id}", headers=HTML).text,
            of_eng.get(f"/models/{NAME}/versions/1.0.0", headers=HTML).text,
        ]
        assert [
            word for look in looks for word in ("Doe", "key.png", "sr.dcm") if word in look
        ] == []
        assert all("Hemorrhage, 12 mL" in look for look in (*looks[:3], looks[4]))
        for prefix in ("", "/api/v1"):
            for path in ("/files", "/files/key.png", "/files/sr.dcm"):
                address = f"{prefix}/model-jobs/{job_id}{path}"
                assert of_eng.get(address).status_code == 403, address
                assert of_both.get(address).status_code == 200, address
        assert "a remark of Doe" in of_both.get(f"/model-jobs/{job_id}", headers=HTML).text
        accessed = [one.event for one in trail(of_both) if one.event.who == "both"]
        assert (AuditKind.INSTANCES_ACCESSED, uid) in [
            (event.kind, event.study_instance_uid) for event in accessed
        ]
