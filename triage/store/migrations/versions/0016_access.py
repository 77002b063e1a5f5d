"""Accounts, sessions, tokens, and the audit trail, which nothing changes or deletes."""

import sqlalchemy as sa
from alembic import op

revision = "0016_access"
down_revision = "0015_destinations"
branch_labels = None
depends_on = None

_REFUSAL = "the audit trail is append-only"


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    _create_accounts()
    _create_log_ins()
    _create_audit_trail()
    _refuse_changes()


def _create_accounts() -> None:
    op.create_table(
        "users",
        sa.Column("id", _key(), nullable=False),
        _text("origin", 16),
        _text("subject", 512),
        _text("name", 128),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("must_change_password", sa.Boolean(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        _moment("created_at"),
        _moment("logged_in_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("origin", "subject", name=op.f("uq_users_origin_subject")),
    )
    op.create_index(op.f("ix_users_name"), "users", ["name"])
    op.create_table(
        "web_sessions",
        sa.Column("id", _key(), nullable=False),
        _text("secret_sha256", 64),
        sa.Column("user_id", _key(), nullable=False),
        _moment("created_at"),
        _moment("last_seen_at"),
        _moment("expires_at"),
        _text("address", 64),
        _text("browser", 256),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_web_sessions_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_sessions")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_web_sessions_secret_sha256")),
    )
    op.create_index(op.f("ix_web_sessions_user_id"), "web_sessions", ["user_id"])
    op.create_index(op.f("ix_web_sessions_expires_at"), "web_sessions", ["expires_at"])
    op.create_table(
        "api_tokens",
        sa.Column("id", _key(), nullable=False),
        _text("secret_sha256", 64),
        sa.Column("user_id", _key(), nullable=False),
        _text("name", 128),
        sa.Column("scopes", sa.JSON(), nullable=False),
        _moment("created_at"),
        _moment("expires_at"),
        _moment("last_used_at", nullable=True),
        _moment("revoked_at", nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_api_tokens_secret_sha256")),
    )
    op.create_index(op.f("ix_api_tokens_user_id"), "api_tokens", ["user_id"])


def _create_log_ins() -> None:
    op.create_table(
        "log_in_failures",
        sa.Column("id", _key(), nullable=False),
        _text("name", 128),
        _text("address", 64),
        _moment("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_in_failures")),
    )
    op.create_index("ix_log_in_failures_name_at", "log_in_failures", ["name", "at"])
    op.create_index("ix_log_in_failures_address_at", "log_in_failures", ["address", "at"])
    op.create_table(
        "pending_log_ins",
        _text("secret_sha256", 64),
        _text("state", 128),
        _text("nonce", 128),
        _text("code_verifier", 128),
        sa.Column("return_to", sa.Text(), nullable=False),
        _moment("expires_at"),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_pending_log_ins")),
    )
    op.create_index(op.f("ix_pending_log_ins_expires_at"), "pending_log_ins", ["expires_at"])


def _create_audit_trail() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", _key(), nullable=False),
        _text("uid", 32),
        _moment("at"),
        _text("kind", 16),
        _text("type", 128),
        _text("action", 1),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        _text("who", 128),
        _text("way", 16),
        _text("address", 64),
        _text("study_instance_uid", 64),
        _text("patient_id", 128),
        sa.Column("studies", sa.JSON(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        sa.UniqueConstraint("uid", name=op.f("uq_audit_events_uid")),
    )
    for column in ("at", "study_instance_uid", "patient_id"):
        op.create_index(op.f(f"ix_audit_events_{column}"), "audit_events", [column])
    op.create_index("ix_audit_events_who_at", "audit_events", ["who", "at"])
    op.create_index("ix_audit_events_kind_at", "audit_events", ["kind", "at"])
    op.create_table(
        "audit_outbox",
        sa.Column("event_id", _key(), nullable=False, autoincrement=False),
        sa.ForeignKeyConstraint(
            ["event_id"], ["audit_events.id"], name=op.f("fk_audit_outbox_event_id")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_audit_outbox")),
    )


def _refuse_changes() -> None:
    """Let the database itself refuse what no code of ours does."""
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_events_no_{verb.lower()} BEFORE {verb} ON audit_events "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"
    )


def downgrade() -> None:
    op.drop_table("audit_outbox")
    op.drop_table("audit_events")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION refuse_audit_change()")
    for table in (
        "pending_log_ins",
        "log_in_failures",
        "api_tokens",
        "web_sessions",
        "users",
    ):
        op.drop_table(table)
