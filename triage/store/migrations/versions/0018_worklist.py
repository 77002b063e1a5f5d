"""The worklist: claims, saved views, what patients are found by, and indexes for long lists."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from triage.core.search_words import words_of_patient

revision = "0018_worklist"
down_revision = "0017_policy"
branch_labels = None
depends_on = None

_AT_ONCE = 1000
_STAND_IN_PREFIX = "(none) "


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _make_tables()
    with op.batch_alter_table("studies") as batch_op:
        batch_op.add_column(
            sa.Column("body_parts", sa.String(length=128), nullable=False, server_default="")
        )
    _fill_body_parts()
    _fill_words()
    op.create_index(
        "ix_studies_to_read",
        "studies",
        [
            sa.text("priority DESC"),
            "ranked_at",
            "id",
            "modalities",
            "body_parts",
            "patient_class",
            "location",
            "ai_priority",
            "read_at",
            "is_prior",
        ],
        sqlite_where=sa.text("read_at IS NULL AND is_prior IS 0"),
        postgresql_where=sa.text("read_at IS NULL AND is_prior IS false"),
    )
    is_read = sa.text("read_at IS NOT NULL")
    op.create_index(
        "ix_studies_read",
        "studies",
        ["read_at", "id"],
        sqlite_where=is_read,
        postgresql_where=is_read,
    )
    op.create_index(
        "ix_studies_accession_prefix",
        "studies",
        ["accession_number"],
        postgresql_ops={"accession_number": "text_pattern_ops"},
    )


def _make_tables() -> None:
    op.create_table(
        "reading_claims",
        sa.Column("study_id", _key(), autoincrement=False, nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["studies.id"],
            name=op.f("fk_reading_claims_study_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_reading_claims")),
    )
    op.create_index("ix_reading_claims_who", "reading_claims", ["who"])
    op.create_table(
        "worklist_views",
        sa.Column("id", _key(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worklist_views")),
        sa.UniqueConstraint("who", "name", name=op.f("uq_worklist_views_who_name")),
    )
    op.create_table(
        "patient_words",
        sa.Column("patient_id", _key(), autoincrement=False, nullable=False),
        sa.Column("word", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient_id"],
            ["patients.id"],
            name=op.f("fk_patient_words_patient_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("patient_id", "word", name=op.f("pk_patient_words")),
    )
    op.create_index(
        "ix_patient_words_word",
        "patient_words",
        ["word", "patient_id"],
        postgresql_ops={"word": "text_pattern_ops"},
    )


def _fill_body_parts() -> None:
    studies, series = sa.table("studies"), sa.table("series")
    for table, columns in (
        (studies, ("id", "body_parts")),
        (series, ("study_id", "body_part", "is_result")),
    ):
        for column in columns:
            table.append_column(sa.column(column))
    stated = sa.select(series.c.study_id, series.c.body_part).where(
        series.c.body_part != "", series.c.is_result.is_(sa.false())
    )
    parts: dict[int, set[str]] = {}
    for study_id, body_part in op.get_bind().execute(stated):
        parts.setdefault(study_id, set()).add(body_part.upper())
    rows = [{"key": key, "parts": "\\".join(sorted(found))[:128]} for key, found in parts.items()]
    write = (
        studies.update()
        .where(studies.c.id == sa.bindparam("key"))
        .values(body_parts=sa.bindparam("parts"))
    )
    for start in range(0, len(rows), _AT_ONCE):
        op.get_bind().execute(write, rows[start : start + _AT_ONCE])


def _fill_words() -> None:
    words = sa.table("patient_words", sa.column("patient_id"), sa.column("word"))
    for rows in _words_of_patients():
        op.get_bind().execute(words.insert(), rows)


def _words_of_patients() -> Iterator[list[dict[str, object]]]:
    patients = sa.table("patients", sa.column("id"), sa.column("name"), sa.column("patient_id"))
    last = 0
    while True:
        some = (
            op.get_bind()
            .execute(
                sa.select(patients)
                .where(patients.c.id > last)
                .order_by(patients.c.id)
                .limit(_AT_ONCE)
            )
            .all()
        )
        if not some:
            return
        last = some[-1].id
        rows: list[dict[str, object]] = []
        for key, name, identity in some:
            known = "" if identity.startswith(_STAND_IN_PREFIX) else identity
            rows += [
                {"patient_id": key, "word": word} for word in sorted(words_of_patient(name, known))
            ]
        if rows:
            yield rows


def downgrade() -> None:
    for name in ("ix_studies_accession_prefix", "ix_studies_read", "ix_studies_to_read"):
        op.drop_index(name, "studies")
    with op.batch_alter_table("studies") as batch_op:
        batch_op.drop_column("body_parts")
    for table in ("patient_words", "worklist_views", "reading_claims"):
        op.drop_table(table)
