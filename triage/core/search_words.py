"""The words by which a patient is found: folded, so that accents and case do not matter."""

from __future__ import annotations

import re
import unicodedata

LONGEST_WORD = 64
MOST_WORDS = 8
_BETWEEN = re.compile(r"[\s^=,;]+")
_WITHIN = re.compile(r"[-'’.]+")


def folded(text: str) -> str:
    """Return the text in capitals and without accents.

    >>> folded("Müller-Lüdenscheidt")
    'MULLER-LUDENSCHEIDT'
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if not unicodedata.combining(c)).upper()


def words_of_patient(name: str, patient_id: str) -> frozenset[str]:
    """Return the words of a Person Name (DICOM PS3.5 6.2.1), all its groups, and of a Patient ID.

    A double name is found by each of its parts too.

    >>> sorted(words_of_patient("Smith-Jones^Ada", "P-17"))
    ['ADA', 'JONES', 'P-17', 'SMITH', 'SMITH-JONES']
    """
    whole = [*_BETWEEN.split(folded(name)), folded(patient_id).strip()]
    parts = [part for word in whole[:-1] for part in _WITHIN.split(word)]
    return frozenset(word[:LONGEST_WORD] for word in (*whole, *parts) if word)


def zero_padded(number: str, longest: int) -> tuple[str, ...]:
    """Return how a number may be written that is known but for its leading zeros.

    >>> zero_padded("042", longest=4)
    ('42', '042', '0042')
    """
    bare = number.lstrip("0 ")
    written = ("0" * zeros + bare for zeros in range(max(1, longest - len(bare) + 1)))
    return tuple(filter(None, written))


def words_sought(text: str) -> tuple[str, ...]:
    """Return what a person typed as words, the longest first: it narrows most.

    >>> words_sought("ada, smith")
    ('SMITH', 'ADA')
    """
    words = dict.fromkeys(word[:LONGEST_WORD] for word in _BETWEEN.split(folded(text)) if word)
    return tuple(sorted(words, key=len, reverse=True)[:MOST_WORDS])
