"""An outbox of objects and notices, each destination's in its own order."""

import sqlalchemy as sa
from alembic import op

revision = "0011_outbox"
down_revision = "0008_watch"
branch_labels = None
depends_on = None

_OF_OBJECT = {
    "subject": "'object:' || result_objects.sop_instance_uid",
    "lane": "'run:' || analysis_runs.id",
    "place": "result_objects.sequence",
    "study_id": "analysis_runs.study_id",
    "run_id": "analysis_runs.id",
}
_NOT_QUEUED = sa.text("NOT is_queued")


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "paused_destinations",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_paused_destinations")),
    )
    with op.batch_alter_table("result_objects") as batch_op:
        batch_op.add_column(
            sa.Column("variant", sa.String(length=32), nullable=False, server_default="")
        )
    with op.batch_alter_table("priority_events") as batch_op:
        # What happened before there were notices is not told after the fact.
        batch_op.add_column(
            sa.Column("is_queued", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.execute(sa.text("UPDATE priority_events SET is_queued = true"))
    op.create_index(
        "ix_priority_events_to_queue",
        "priority_events",
        ["id"],
        sqlite_where=_NOT_QUEUED,
        postgresql_where=_NOT_QUEUED,
    )
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("subject", sa.String(length=96), nullable=True))
        batch_op.add_column(sa.Column("lane", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("place", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("study_id", _key(), nullable=True))
        batch_op.add_column(sa.Column("run_id", _key(), nullable=True))
    op.execute("UPDATE deliveries SET kind = 'result'")
    for column, value in _OF_OBJECT.items():
        op.execute(
            f"UPDATE deliveries SET {column} = (SELECT {value} FROM result_objects "  # noqa: S608
            "JOIN analysis_runs ON analysis_runs.id = result_objects.run_id "
            "WHERE result_objects.id = deliveries.result_object_id)"
        )
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.alter_column("kind", existing_type=sa.String(length=16), nullable=False)
        batch_op.alter_column("subject", existing_type=sa.String(length=96), nullable=False)
        batch_op.alter_column("lane", existing_type=sa.String(length=32), nullable=False)
        batch_op.alter_column("place", existing_type=sa.Integer(), nullable=False)
        batch_op.alter_column("study_id", existing_type=_key(), nullable=False)
        batch_op.alter_column("result_object_id", existing_type=_key(), nullable=True)
        batch_op.drop_constraint("uq_deliveries_result_object_id_destination", type_="unique")
        batch_op.create_unique_constraint(
            "uq_deliveries_subject_destination", ["subject", "destination"]
        )
        batch_op.create_foreign_key("fk_deliveries_study_id", "studies", ["study_id"], ["id"])
        batch_op.create_foreign_key("fk_deliveries_run_id", "analysis_runs", ["run_id"], ["id"])
    op.create_index("ix_deliveries_lane", "deliveries", ["lane", "destination"])
    for column in ("study_id", "run_id", "result_object_id"):
        op.create_index(f"ix_deliveries_{column}", "deliveries", [column])


def downgrade() -> None:
    for column in ("lane", "study_id", "run_id", "result_object_id"):
        op.drop_index(f"ix_deliveries_{column}", "deliveries")
    op.execute("DELETE FROM deliveries WHERE result_object_id IS NULL")
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.drop_constraint("fk_deliveries_run_id", type_="foreignkey")
        batch_op.drop_constraint("fk_deliveries_study_id", type_="foreignkey")
        batch_op.drop_constraint("uq_deliveries_subject_destination", type_="unique")
        batch_op.create_unique_constraint(
            "uq_deliveries_result_object_id_destination", ["result_object_id", "destination"]
        )
        batch_op.alter_column("result_object_id", existing_type=_key(), nullable=False)
        for column in ("run_id", "study_id", "place", "lane", "subject", "kind"):
            batch_op.drop_column(column)
    op.drop_index("ix_priority_events_to_queue", "priority_events")
    with op.batch_alter_table("priority_events") as batch_op:
        batch_op.drop_column("is_queued")
    with op.batch_alter_table("result_objects") as batch_op:
        batch_op.drop_column("variant")
    op.drop_table("paused_destinations")
