"""Answers and sign-offs when several radiologists are at one study, on either database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.store.test_feedback import judged_model
from tests.tools import ManualClock
from triage.core.agreement import Verdict
from triage.core.missed import MissedFinding
from triage.store.answer_tables import MissedFindingRow, SignOffRow
from triage.store.database import Database
from triage.store.feedback import feedback_on, record_feedback, take_back_feedback
from triage.store.missed import missed_of, report_missed, take_back_missed
from triage.store.sign_offs import AnswersClosedError, open_again, sign_off, sign_offs_of
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow


def a_finding(database: Database, clock: ManualClock) -> tuple[int, int]:
    """Return a finding that was said to be there, and its study."""
    _, (finding, *_) = judged_model(database, clock)
    with database.reading() as session:
        study_id = session.scalars(
            select(AnalysisRunRow.study_id)
            .join(FindingRow, FindingRow.run_id == AnalysisRunRow.id)
            .where(FindingRow.id == finding)
        ).one()
    return finding, study_id


def test_what_two_say_of_a_finding_at_once_is_both_kept(
    database: Database, clock: ManualClock
) -> None:
    finding, _ = a_finding(database, clock)

    def say(person: int) -> None:
        with database.transaction() as session:
            record_feedback(
                session,
                finding,
                who=f"reader {person}",
                verdict=Verdict.AGREE if person % 2 else Verdict.DISAGREE,
                reason="",
                now=clock(),
            )

    with ThreadPoolExecutor(4) as people:
        list(people.map(say, range(4)))
    with database.reading() as session:
        said = feedback_on(session, [finding])[finding]
    assert sorted(one.who for one in said) == [f"reader {person}" for person in range(4)]


def test_of_two_that_sign_off_at_once_one_has_signed(
    database: Database, clock: ManualClock
) -> None:
    _, study_id = a_finding(database, clock)

    def sign(person: int) -> bool:
        with database.transaction() as session:
            return sign_off(session, study_id, who=f"reader {person}", now=clock())

    with ThreadPoolExecutor(4) as people:
        assert sorted(people.map(sign, range(4))) == [False, False, False, True]
    with database.reading() as session:
        assert len(sign_offs_of(session, study_id)) == 1


def test_nothing_is_answered_or_taken_back_once_signed_off(
    database: Database, clock: ManualClock
) -> None:
    finding, study_id = a_finding(database, clock)
    with database.transaction() as session:
        study = session.get_one(StudyRow, study_id)
        missed = MissedFinding(words="fracture", laterality="left")
        kept = report_missed(session, study, missed, who="ada", now=clock())
        sign_off(session, study_id, who="ada", now=clock())
    clock.advance(60)
    with pytest.raises(AnswersClosedError, match="ada has signed off"), database.transaction() as s:
        take_back_feedback(s, finding, who="ada", now=clock())
    with pytest.raises(AnswersClosedError), database.transaction() as s:
        take_back_missed(s, s.get_one(StudyRow, study_id), kept.report_id, who="ada", now=clock())
    with database.transaction() as session:
        open_again(session, study_id, who="bob", reason=" a word ", now=clock())
    with database.transaction() as session:
        study = session.get_one(StudyRow, study_id)
        take_back_missed(session, study, kept.report_id, who="ada", now=clock())
        assert missed_of(session, study_id) == []
        [signed] = sign_offs_of(session, study_id)
    assert (signed.reopened_by, signed.reopen_reason) == ("bob", "a word")
    assert signed.reopened_at == signed.at + timedelta(seconds=60)


def test_more_images_than_were_signed_open_the_answers(
    database: Database, clock: ManualClock
) -> None:
    finding, study_id = a_finding(database, clock)
    with database.transaction() as session:
        sign_off(session, study_id, who="ada", now=clock())
    with database.transaction() as session:
        session.get_one(StudyRow, study_id).generation += 1
    with database.transaction() as session:
        record_feedback(session, finding, who="ada", verdict=Verdict.AGREE, reason="", now=clock())
        assert sign_off(session, study_id, who="ada", now=clock())
    with database.reading() as session:
        assert len(session.scalars(select(SignOffRow)).all()) == 2
        assert session.scalars(select(MissedFindingRow)).all() == []
