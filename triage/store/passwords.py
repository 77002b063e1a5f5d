"""Passwords: which are good enough, and how they are kept (Argon2id, RFC 9106).

The rules are those of NIST SP 800-63B 5.1.1: long enough, none of the commonest, no recipe of
character classes, no regular change.
"""

from __future__ import annotations

from argon2 import PasswordHasher, profiles
from argon2.exceptions import InvalidHashError, VerificationError

from triage.core.errors import TriageError

LONGEST = 256
PARAMETERS = profiles.RFC_9106_LOW_MEMORY
_HASHER = PasswordHasher.from_parameters(PARAMETERS)
# What is left of the commonest passwords once digits and signs around and leetspeak are taken off.
_COMMONEST = frozenset(
    """
    abcdef access admin administrator adminadmin asdfgh asdfghjkl baseball changeme charlie computer
    daniel default doctor donald dragon facebook flower football freedom hello hospital iloveyou
    jennifer jordan klinik krankenhaus letmein letmeinplease login maggie master medical michael
    monkey mustang ninja nurse passcode passphrase passwd passwort password passwordpassword pokemon
    princess qazwsx qwerty qwertyuiop qwertz qwertzuiop radiology radiologist radiologie secret
    shadow starwars summer sunshine superman superuser thomas tigger triage trustnoone welcome
    whatever winter
    """.split()  # noqa: SIM905 - a list of so many would be a page
)
_LEET = str.maketrans("0134578@$!", "oleastbasi")


class PasswordError(TriageError):
    """A password is not good enough; the message says why."""


def check_password(password: str, name: str, *, minimum_length: int) -> None:
    """Refuse a password that others would guess.

    Raises:
        PasswordError: it is too short or too long, has the person's name in it, or is common.
    """
    if len(password) < minimum_length:
        raise PasswordError(f"password: it needs at least {minimum_length} characters")
    if len(password) > LONGEST:
        raise PasswordError(f"password: it may have at most {LONGEST} characters")
    if len(set(password)) < 4:
        raise PasswordError("password: it repeats the same few characters; choose another")
    if len(name) >= 4 and name.casefold() in password.casefold():
        raise PasswordError("password: it holds the name of the account; choose another")
    if _core_of(password) in _COMMONEST:
        raise PasswordError("password: it is one of the commonest; choose another")


def _core_of(password: str) -> str:
    plain = password.casefold().strip("0123456789!?.,;:-_+*#$@ ").translate(_LEET)
    return "".join(c for c in plain if c.isalpha())


def hash_password(password: str) -> str:
    """Return the encoded hash of a password, which has its parameters and salt in it."""
    return _HASHER.hash(password)


def hash_of_nobody() -> str:
    """Return a hash that no password has; looking for one costs as much as with any other."""
    # Written down, not computed, which would cost each of Triage's processes as much as a log-in.
    costs = f"m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    return f"$argon2id$v={PARAMETERS.version}${costs}${'A' * 22}${'A' * 43}"


def is_password(encoded: str, password: str) -> bool:
    """Return whether `password` is that of the hash; as slow where there is none."""
    try:
        return _HASHER.verify(encoded or hash_of_nobody(), password[: LONGEST + 1]) and bool(
            encoded
        )
    except (VerificationError, InvalidHashError):
        return False


def needs_new_hash(encoded: str) -> bool:
    """Return whether the hash was made with weaker parameters than today's."""
    return _HASHER.check_needs_rehash(encoded)
