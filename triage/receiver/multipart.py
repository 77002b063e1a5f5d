"""The parts of a multipart/related body, cut as its bytes arrive (RFC 2387, RFC 2046 5.1)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from triage.core.errors import TriageError

_IN_MEMORY_BYTES = 4 * 1024 * 1024
_LONGEST_PREAMBLE_BYTES = 64 * 1024
_LONGEST_BOUNDARY = 200  # 70 in RFC 2046 5.1.1, but Orthanc's have 73
_MOST_HEADERS = 32
_LONGEST_HEADER_BYTES = 8192


class MultipartError(TriageError):
    """The body is not what its Content-Type says; the message says what is wrong."""


class ContentTypeError(MultipartError):
    """The Content-Type is not multipart/related of DICOM files."""


@dataclass(slots=True)
class Part:
    """One part of a body. Above some megabytes its content lies on the disk.

    Attributes:
        headers: names in lower case.
        size_bytes: how long the content is, also where it was not kept.
        is_too_large: it was longer than allowed and has not been kept.
    """

    file: IO[bytes]
    headers: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    is_too_large: bool = False

    @property
    def media_type(self) -> str:
        """The part's media type without parameters, in lower case; "" where it has none."""
        return parse_options_header(self.headers.get("content-type"))[0].decode("latin-1")

    @property
    def is_on_disk(self) -> bool:
        """Whether the content was too long for memory."""
        return self.size_bytes > _IN_MEMORY_BYTES

    def content(self) -> bytes:
        """Return the content, whole."""
        self.file.seek(0)
        return self.file.read()

    def close(self) -> None:
        """Free the content."""
        self.file.close()


def dicom_boundary(content_type: str) -> bytes:
    """Return the boundary that a Content-Type of DICOM files names (DICOM PS3.18 8.7.3).

    Raises:
        ContentTypeError: it is another type.
        MultipartError: it names no valid boundary.
    """
    media_type, parameters = parse_options_header(content_type)
    if media_type != b"multipart/related":
        raise ContentTypeError('the body must be multipart/related; type="application/dicom"')
    root_type = parameters.get(b"type", b"application/dicom").lower()
    if root_type != b"application/dicom":
        raise ContentTypeError('only multipart/related with type="application/dicom" is taken')
    boundary = parameters.get(b"boundary", b"")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise MultipartError("Content-Type names no boundary, or one that is too long")
    return boundary


class PartCutter:
    """Cuts a body into parts; it never holds more than one part that is still growing."""

    def __init__(
        self, boundary: bytes, *, largest_part_bytes: int, folder: Path | None = None
    ) -> None:
        """Prepare for a body; parts that are too long for memory go below `folder`."""
        self._delimiter = b"--" + boundary
        self._largest = largest_part_bytes
        self._folder = str(folder) if folder is not None else None
        self._before: bytearray | None = bytearray()
        self._growing: Part | None = None
        self._ended: list[Part] = []
        self._is_whole = False
        self._header_name = b""
        self._header_value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_LONGEST_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> list[Part]:
        """Take the next bytes of the body and return the parts that they end.

        Raises:
            MultipartError: the body is malformed.
        """
        if self._is_whole:
            return []  # the epilogue, which says nothing
        data = self._without_preamble(data)
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise MultipartError("the multipart body is malformed") from error
        ended, self._ended = self._ended, []
        return ended

    @property
    def is_writing_to_disk(self) -> bool:
        """Whether the part that is growing has become too long for memory."""
        return self._growing is not None and self._growing.is_on_disk

    def finish(self) -> None:
        """Check that the body has come to its end.

        Raises:
            MultipartError: the closing boundary has not come.
        """
        if not self._is_whole:
            raise MultipartError("the multipart body ends before its closing boundary")

    def close(self) -> None:
        """Free what has not been handed out."""
        for part in (*self._ended, self._growing):
            if part is not None:
                part.close()

    def _without_preamble(self, data: bytes) -> bytes:
        """Drop what stands before the first boundary: RFC 2046 allows it, the parser does not."""
        if self._before is None:
            return data
        self._before += data
        start = self._before.find(self._delimiter)
        if start < 0:
            if len(self._before) > _LONGEST_PREAMBLE_BYTES:
                raise MultipartError("the multipart body does not begin with its boundary")
            return b""
        rest = bytes(self._before[start:])
        self._before = None
        return rest

    def _on_begin(self) -> None:
        file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=self._folder)  # noqa: SIM115
        self._growing = Part(file)

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        assert self._growing is not None
        name = self._header_name.decode("latin-1").lower()
        self._growing.headers[name] = self._header_value.decode("latin-1").strip()
        self._header_name = self._header_value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        part = self._growing
        assert part is not None
        part.size_bytes += end - start
        if part.is_too_large:
            return
        if part.size_bytes > self._largest:
            part.is_too_large = True
            part.file.seek(0)
            part.file.truncate()
            return
        part.file.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        assert self._growing is not None
        self._ended.append(self._growing)
        self._growing = None

    def _on_end(self) -> None:
        self._is_whole = True
