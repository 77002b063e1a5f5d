"""Orders, merged patients and received messages of HL7 v2."""

import sqlalchemy as sa
from alembic import op

revision = "0013_hl7"
down_revision = "0012_withdrawals"
branch_labels = None
depends_on = None

_INDEXED = (
    "accession_number",
    "placer_number",
    "filler_number",
    "study_instance_uid",
    "updated_at",
)


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", _key(), nullable=False),
        _text("source", 128),
        _text("accession_number", 64),
        _text("placer_number", 64),
        _text("filler_number", 64),
        _text("study_instance_uid", 64),
        sa.Column("identifiers", sa.JSON(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=True),
        _text("location", 128),
        _text("patient_class", 16),
        sa.Column("reason", sa.Text(), nullable=False),
        _text("procedure_code", 64),
        _text("procedure_text", 256),
        _text("procedure_scheme", 64),
        _moment("ordered_at", nullable=True),
        _moment("stated_at"),
        sa.Column("is_cancelled", sa.Boolean(), nullable=False),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    for column in _INDEXED:
        op.create_index(f"ix_orders_{column}", "orders", [column])
    op.create_table(
        "patient_merges",
        sa.Column("id", _key(), nullable=False),
        _text("retired_id", 128),
        _text("retired_issuer", 128),
        _text("survivor_id", 128),
        _text("survivor_issuer", 128),
        _text("source", 128),
        _moment("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient_merges")),
        sa.UniqueConstraint(
            "retired_id", "retired_issuer", name=op.f("uq_patient_merges_retired_id_retired_issuer")
        ),
    )
    op.create_table(
        "hl7_messages",
        sa.Column("id", _key(), nullable=False),
        _text("sender", 128),
        _text("control_id", 199),
        _text("sha256", 64),
        _text("message_type", 16),
        _text("address", 64),
        _text("state", 16),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        _moment("received_at"),
        _moment("processed_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hl7_messages")),
        sa.UniqueConstraint(
            "sender",
            "control_id",
            "sha256",
            name=op.f("uq_hl7_messages_sender_control_id_sha256"),
        ),
    )
    op.create_index("ix_hl7_messages_state", "hl7_messages", ["state", "received_at"])
    op.create_index("ix_hl7_messages_received_at", "hl7_messages", ["received_at"])
    with op.batch_alter_table("studies") as batch_op:
        batch_op.add_column(sa.Column("order_id", _key(), nullable=True))
        for name, length in (("location", 128), ("patient_class", 16)):
            batch_op.add_column(
                sa.Column(name, sa.String(length=length), nullable=False, server_default="")
            )
        batch_op.create_foreign_key("fk_studies_order_id", "orders", ["order_id"], ["id"])
    op.create_index("ix_studies_order_id", "studies", ["order_id"])


def downgrade() -> None:
    op.drop_index("ix_studies_order_id", "studies")
    with op.batch_alter_table("studies") as batch_op:
        batch_op.drop_constraint("fk_studies_order_id", type_="foreignkey")
        for name in ("patient_class", "location", "order_id"):
            batch_op.drop_column(name)
    for table in ("hl7_messages", "patient_merges", "orders"):
        op.drop_table(table)
