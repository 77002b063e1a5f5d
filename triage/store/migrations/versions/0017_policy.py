"""The priority policy, and the places of studies and runs that it decides."""

import sqlalchemy as sa
from alembic import op

revision = "0017_policy"
down_revision = "0016_access"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "policy_versions",
        sa.Column("id", _key(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _at("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_versions")),
    )
    op.create_table(
        "policy_events",
        sa.Column("id", _key(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("version_id", _key(), nullable=True),
        sa.Column("ai_counts", sa.Boolean(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _at("at"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["policy_versions.id"], name=op.f("fk_policy_events_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_events")),
    )
    _add_places_of_studies()
    _add_moment("analysis_runs", "created_at")
    op.drop_index("ix_analysis_runs_queue", "analysis_runs")
    op.create_index(
        "ix_analysis_runs_queue",
        "analysis_runs",
        ["state", sa.text("priority DESC"), "ranked_at", "id"],
    )
    op.add_column(
        "priority_events", sa.Column("place", sa.Text(), nullable=False, server_default="")
    )


def _add_places_of_studies() -> None:
    _add_moment("studies", "first_instance_at")
    for column in (
        sa.Column("ai_points", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("priority_without_ai", sa.SmallInteger(), nullable=True),
        sa.Column("points", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("ranked_by", sa.Integer(), nullable=False, server_default="-1"),
        _at("due_at", nullable=True),
        _at("rises_at", nullable=True),
        sa.Column("raised_to", sa.SmallInteger(), nullable=True),
        sa.Column("raised_by", sa.String(length=128), nullable=False, server_default=""),
        sa.Column("raised_reason", sa.Text(), nullable=False, server_default=""),
        _at("raised_at", nullable=True),
    ):
        op.add_column("studies", column)
    op.drop_index("ix_studies_place", "studies")
    _add_index_of_list("ix_studies_ranked_by", "ranked_by")
    _add_index_of_list("ix_studies_rises_at", "rises_at")


def _add_index_of_list(name: str, *columns: str | sa.TextClause) -> None:
    op.create_index(
        name,
        "studies",
        list(columns),
        sqlite_where=sa.text("read_at IS NULL AND is_prior IS 0"),
        postgresql_where=sa.text("read_at IS NULL AND is_prior IS false"),
    )


def _add_moment(table: str, same_as: str) -> None:
    """Add `ranked_at`, as nobody has any points yet."""
    # SQLite adds a column that may not be empty only with a constant default.
    op.add_column(
        table,
        sa.Column(
            "ranked_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default="1970-01-01 00:00:00+00",
        ),
    )
    op.execute(
        sa.update(sa.table(table, sa.column("ranked_at"))).values(ranked_at=sa.column(same_as))
    )
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column(table, "ranked_at", server_default=None)


def downgrade() -> None:
    op.drop_column("priority_events", "place")
    op.drop_index("ix_analysis_runs_queue", "analysis_runs")
    op.drop_column("analysis_runs", "ranked_at")
    op.create_index("ix_analysis_runs_queue", "analysis_runs", ["state", "priority", "created_at"])
    for name in ("ranked_by", "rises_at"):
        op.drop_index(f"ix_studies_{name}", "studies")
    for name in (
        "ranked_at",
        "ai_points",
        "priority_without_ai",
        "points",
        "ranked_by",
        "due_at",
        "rises_at",
        "raised_to",
        "raised_by",
        "raised_reason",
        "raised_at",
    ):
        op.drop_column("studies", name)
    op.create_index("ix_studies_place", "studies", ["read_at", "priority", "first_instance_at"])
    op.drop_table("policy_events")
    op.drop_table("policy_versions")
