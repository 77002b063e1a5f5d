"""The sections about who logs in and how: `[web.login]` and `[web.login.oidc]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from triage.core.permissions import Role
from triage.settings.parts import Seconds, Section

Groups = tuple[Annotated[str, Field(min_length=1)], ...]


class RoleGroups(Section):
    """`[web.login.groups]`: which groups of the provider or proxy have which role."""

    radiologist: Groups = ()
    """Groups whose members are radiologists."""
    administrator: Groups = ()
    """Groups whose members are administrators."""
    ml_engineer: Groups = ()
    """Groups whose members are ML engineers."""
    auditor: Groups = ()
    """Groups whose members are auditors."""

    def roles_of(self, groups: set[str]) -> tuple[Role, ...]:
        """Return the roles of somebody who is a member of `groups`."""
        wanted = {role: getattr(self, role.value.replace("-", "_")) for role in Role}
        return tuple(role for role, names in wanted.items() if groups.intersection(names))


class OidcSettings(Section):
    """`[web.login.oidc]`: the provider that knows who somebody is (OpenID Connect Core 1.0)."""

    issuer: str = ""
    """The provider's issuer, such as `https://login.hospital.example/realms/hospital`; its
    discovery document is below it at `/.well-known/openid-configuration`."""
    client_id: str = ""
    """What the provider calls Triage."""
    client_secret: str = ""
    """The secret that it gave Triage; empty for a public client, which PKCE alone protects."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    """What is asked of the provider; add the one that gives groups where it has one."""
    name_claim: str = "preferred_username"
    """The claim of the ID token that is a person's name in history and audit."""
    groups_claim: str = "groups"
    """The claim with the groups; a dot goes into an object, such as `realm_access.roles`."""
    timeout_s: Seconds = 10.0
    """Seconds that the provider may take to answer."""

    @field_validator("issuer")
    @classmethod
    def _is_safe(cls, issuer: str) -> str:
        on_this_machine = issuer.startswith(("http://127.0.0.1", "http://localhost"))
        if issuer and not issuer.startswith("https://") and not on_this_machine:
            raise ValueError("must begin with https://")
        return issuer.rstrip("/")


class LoginSettings(Section):
    """`[web.login]`: who may use the pages, the API and DICOMweb.

    With `off` everybody who reaches the pages may do everything, which is meant for one machine.
    """

    mode: Literal["off", "local", "oidc", "proxy"] = "off"
    """`off`: nobody logs in. `local`: accounts of Triage itself (`triage users`). `oidc`: an OpenID
    Connect provider. `proxy`: the proxy in front says who it is, in `web.user_header` and
    `groups_header`."""
    groups_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$")] = ""
    """Header in which the proxy names a person's groups, separated by commas; it must remove what
    browsers send under that name."""
    groups: RoleGroups = RoleGroups()
    """Which groups have which role, for `oidc` and `proxy`: the section `[web.login.groups]`."""
    default_roles: tuple[Role, ...] = ()
    """Roles of everybody whom the provider or proxy names, whatever their groups."""
    oidc: OidcSettings = OidcSettings()
    """The provider: the section `[web.login.oidc]`."""
    idle_minutes: Annotated[float, Field(gt=0)] = 30.0
    """Minutes without a request of a person's after which a session ends; what an open page asks by
    itself does not count."""
    session_hours: Annotated[float, Field(gt=0)] = 12.0
    """Hours after which a session ends in any case."""
    secure_cookies: Literal["auto", "always", "never"] = "auto"
    """Whether browsers send the session over https only; `auto` is: where the page came by https or
    `web.public_url` says so."""
    cookie_domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]*$")] = ""
    """Domain of the session's cookie, where pages and viewer have different host names, such as
    `triage.hospital.example`; every host below it gets the cookie."""
    minimum_password_length: Annotated[int, Field(ge=8, le=128)] = 12
    """The fewest characters of a password."""
    failures_before_lock: Annotated[int, Field(ge=1)] = 5
    """Failed attempts to log in with one name from one address before both together are locked; ten
    times as many from one address, or with one name, lock that address, or that name."""
    lock_minutes: Annotated[float, Field(gt=0)] = 15.0
    """Minutes for which they are locked."""
    token_days: Annotated[int, Field(ge=1)] = 365
    """The longest that an API token may be valid, in days."""

    @model_validator(mode="after")
    def _complete(self) -> LoginSettings:
        if self.mode == "oidc" and not (self.oidc.issuer and self.oidc.client_id):
            raise ValueError(
                "web.login.mode oidc needs issuer and client_id in the section [web.login.oidc]"
            )
        if self.mode in ("oidc", "proxy") and not self._gives_roles:
            raise ValueError(
                f"web.login.mode {self.mode} gives nobody a role; name groups in [web.login.groups]"
                " or set web.login.default_roles"
            )
        if self.mode == "proxy" and self._names_groups and not self.groups_header:
            raise ValueError("web.login.groups needs web.login.groups_header with mode proxy")
        return self

    @property
    def _names_groups(self) -> bool:
        return any(getattr(self.groups, name) for name in RoleGroups.model_fields)

    @property
    def _gives_roles(self) -> bool:
        return bool(self.default_roles) or self._names_groups

    def roles_of(self, groups: set[str]) -> tuple[Role, ...]:
        """Return the roles of somebody whom the provider or proxy names with `groups`."""
        return tuple(dict.fromkeys((*self.default_roles, *self.groups.roles_of(groups))))
