"""Character sets (MSH-18) and escape sequences (HL7 v2.5.1 sections 2.15.9.18 and 2.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNICODE = "UNICODE UTF-8"

_CODECS = {
    "": "ascii",
    "ASCII": "ascii",
    "8859/1": "iso8859-1",
    "8859/2": "iso8859-2",
    "8859/3": "iso8859-3",
    "8859/4": "iso8859-4",
    "8859/5": "iso8859-5",
    "8859/6": "iso8859-6",
    "8859/7": "iso8859-7",
    "8859/8": "iso8859-8",
    "8859/9": "iso8859-9",
    "8859/15": "iso8859-15",
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    "UNICODE": "utf-8",
    UNICODE: "utf-8",
}


def codec_of(character_set: str) -> str | None:
    """Return Python's name of a character set of table 0211, None of one that is not known.

    >>> codec_of("8859/1")
    'iso8859-1'
    """
    return _CODECS.get(" ".join(character_set.upper().split()))


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The characters that divide a message: MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @property
    def encoding_characters(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent


DELIMITERS = Delimiters()
"""Those that the standard recommends and everybody uses."""

_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_FORMATTING = {".br": "\n", ".sp": "\n", ".ce": "\n", ".sk": " ", ".in": "", ".ti": ""}


def escape(text: str, delimiters: Delimiters = DELIMITERS) -> str:
    r"""Return `text` as the content of a component.

    Line ends become \.br\; other control characters, which would end a block of MLLP or a segment,
    become a space. What is beyond ASCII stays as it is, for MSH-18 says what it means.

    >>> escape("A&E | 50^2")
    'A\\T\\E \\F\\ 50\\S\\2'
    """
    mark = delimiters.escape
    names = {
        mark: f"{mark}E{mark}",
        delimiters.field: f"{mark}F{mark}",
        delimiters.component: f"{mark}S{mark}",
        delimiters.repetition: f"{mark}R{mark}",
        delimiters.subcomponent: f"{mark}T{mark}",
        "\n": f"{mark}.br{mark}",
    }
    plain = _LINE_ENDS.sub("\n", text)
    return "".join(names.get(c, c if c >= " " and c != "\x7f" else " ") for c in plain)


def unescape(text: str, delimiters: Delimiters = DELIMITERS, codec: str = "utf-8") -> str:
    r"""Return the content of a component as text.

    Hexadecimal data (\X…\) are bytes of the message's character set. What switches character sets,
    highlights or is not known is left out, and so is the rest of a sequence that does not end.

    >>> unescape("A\\T\\E\\.br\\\\X4D4E\\")
    'A&E\nMN'
    """
    mark = delimiters.escape
    if mark not in text:
        return text
    plain = {
        "E": mark,
        "F": delimiters.field,
        "S": delimiters.component,
        "R": delimiters.repetition,
        "T": delimiters.subcomponent,
    }
    parts = text.split(mark)
    found = [parts[0]]
    for sequence, following in zip(parts[1::2], parts[2::2], strict=False):
        if sequence[:1] in ("X", "x"):
            found.append(_of_hexadecimal(sequence[1:], codec))
        else:
            found.append(plain.get(sequence) or _FORMATTING.get(sequence[:3], ""))
        found.append(following)
    return "".join(found)


def _of_hexadecimal(digits: str, codec: str) -> str:
    try:
        return bytes.fromhex(digits).decode(codec, errors="replace")
    except ValueError:
        return ""
