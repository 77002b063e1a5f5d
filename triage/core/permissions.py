"""Who may do what: permissions, and the roles that give them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Permission(StrEnum):
    """Something that a person or a program may be allowed to do; also the scope of a token."""

    SEE_PATIENTS = "see-patients"
    """See the worklist, studies, images and findings, on pages and over DICOMweb."""
    CHANGE_WORKLIST = "change-worklist"
    """Mark studies as read, and use the worklist as unified procedure steps."""
    ANSWER_FINDINGS = "answer-findings"
    """Say whether a finding is right, and take results back."""
    STORE_IMAGES = "store-images"
    """Send instances over HTTP (STOW-RS)."""
    SEE_MODELS = "see-models"
    """See models, their versions and how they do."""
    MANAGE_MODELS = "manage-models"
    """Register, check, try and evaluate models, and move them between stages."""
    APPROVE_CODE = "approve-code"
    """Let the code in a model package run."""
    SEE_OPERATIONS = "see-operations"
    """See what runs, what waits and what is stuck; it names patients."""
    OPERATE = "operate"
    """Resend, give up and pause deliveries, process messages again."""
    CHANGE_POLICY = "change-policy"
    """Change the rules by which studies are prioritised and routed."""
    MANAGE_USERS = "manage-users"
    """Give and take accounts, roles and tokens."""
    READ_AUDIT = "read-audit"
    """Read and export the audit trail."""
    OWN_ACCOUNT = "own-account"
    """See one's own account, sessions and tokens: whoever is logged in."""


class Role(StrEnum):
    """What somebody is in the hospital, as far as Triage is concerned."""

    RADIOLOGIST = "radiologist"
    ADMINISTRATOR = "administrator"
    ML_ENGINEER = "ml-engineer"
    AUDITOR = "auditor"


ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.RADIOLOGIST: frozenset(
        {
            Permission.SEE_PATIENTS,
            Permission.CHANGE_WORKLIST,
            Permission.ANSWER_FINDINGS,
            Permission.SEE_MODELS,
        }
    ),
    Role.ADMINISTRATOR: frozenset(
        {
            Permission.SEE_PATIENTS,
            Permission.STORE_IMAGES,
            Permission.SEE_MODELS,
            Permission.APPROVE_CODE,
            Permission.SEE_OPERATIONS,
            Permission.OPERATE,
            Permission.CHANGE_POLICY,
            Permission.MANAGE_USERS,
        }
    ),
    Role.ML_ENGINEER: frozenset(
        {Permission.SEE_MODELS, Permission.MANAGE_MODELS},
    ),
    # Whoever reads the trail changes nothing, so that no entry is about the reader's own doing.
    Role.AUDITOR: frozenset({Permission.READ_AUDIT}),
}
"""What each role may do; several roles add up. `OWN_ACCOUNT` comes with every account."""

SCOPES = tuple(p for p in Permission if p is not Permission.OWN_ACCOUNT)
"""What a token can be for: an account is for persons, so a token cannot make further tokens."""


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """Return what somebody with `roles` may do.

    >>> sorted(permissions_of([Role.AUDITOR]))
    [<Permission.OWN_ACCOUNT: 'own-account'>, <Permission.READ_AUDIT: 'read-audit'>]
    """
    given = (ROLE_PERMISSIONS[role] for role in roles)
    return frozenset({Permission.OWN_ACCOUNT}).union(*given)


ALL_PERMISSIONS = frozenset(Permission)


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """Return the roles that give `permission`."""
    return tuple(role for role in Role if permission in permissions_of([role]))
