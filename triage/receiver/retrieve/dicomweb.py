"""QIDO-RS and WADO-RS as a user (DICOM PS3.18 10.6 and 10.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from triage.core.priors import Comparable
from triage.receiver.encoded import read_instance
from triage.receiver.multipart import MultipartError, PartCutter, dicom_boundary
from triage.receiver.refusals import RefusedInstanceError
from triage.receiver.retrieve.archive import (
    INSTANCE_KEYWORDS,
    SERIES_KEYWORDS,
    STUDY_KEYWORDS,
    FoundInstance,
    FoundSeries,
    NotOfferedError,
    Progress,
    RetrieveError,
    StudyQuery,
    Take,
    instance_in,
    series_in,
    study_in,
)
from triage.settings import RemoteSettings

_PAGE = 500
_MOST_PAGES = 1000
_LARGEST_INSTANCE_BYTES = 4 * 1024**3
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class DicomwebFinder:
    """Asks an archive what it holds, by QIDO-RS."""

    def __init__(self, remote: RemoteSettings) -> None:
        self._remote = remote

    def find_studies(self, query: StudyQuery) -> list[Comparable]:
        """Return the studies that match.

        Raises:
            RetrieveError: the archive cannot be asked, or answers with a failure.
        """
        wanted = {
            "StudyInstanceUID": query.study_instance_uid,
            "AccessionNumber": query.accession_number,
            "PatientID": query.patient_id,
        }
        found = map(study_in, self._search("studies", STUDY_KEYWORDS, wanted))
        return [study for study in found if study.study_instance_uid and query.matches(study)]

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study.

        Raises:
            RetrieveError: the archive cannot be asked, or answers with a failure.
        """
        path = f"{_study_path(study_instance_uid)}/series"
        return [series_in(answer) for answer in self._search(path, SERIES_KEYWORDS, {})]

    def find_instances(self, study_instance_uid: str) -> list[FoundInstance]:
        """Return the instances of a study.

        Raises:
            RetrieveError: the archive cannot be asked, or answers with a failure.
        """
        path = f"{_study_path(study_instance_uid)}/instances"
        keywords = ("SeriesInstanceUID", *INSTANCE_KEYWORDS)
        return [instance_in(answer) for answer in self._search(path, keywords, {})]

    def _search(
        self, path: str, keywords: Sequence[str], wanted: Mapping[str, str]
    ) -> list[Dataset]:
        """Return all pages of an answer; an archive may cut one short where it likes."""
        found: dict[str, Dataset] = {}
        with _client(self._remote) as client:
            for _ in range(_MOST_PAGES):
                parameters: dict[str, str | list[str]] = {
                    **{key: value for key, value in wanted.items() if value},
                    "includefield": [f"{tag_for_keyword(k):08X}" for k in keywords],
                    "limit": str(_PAGE),
                    "offset": str(len(found)),
                }
                answer = _get(client, self._remote, path, httpx.QueryParams(parameters))
                before = len(found)
                for item in answer:
                    dataset = _dataset(self._remote, item)
                    found.setdefault(str(dataset.get(_uid_keyword(path), "")), dataset)
                if len(found) == before:
                    break
        found.pop("", None)
        return list(found.values())


def _uid_keyword(path: str) -> str:
    """Return the keyword of the UID that tells the answers to a search apart."""
    kinds = {"series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
    return kinds.get(path.rsplit("/", 1)[-1], "StudyInstanceUID")


class DicomwebWay:
    """WADO-RS: the archive gives the instances over HTTP."""

    name = "dicomweb"

    def __init__(self, remote: RemoteSettings) -> None:
        self._remote = remote

    def retrieve(
        self,
        study_instance_uid: str,
        instances: Sequence[FoundInstance],
        *,
        is_whole_study: bool,
        take: Take,
        progress: Progress,
    ) -> None:
        """Let the instances be given to `take`, in the transfer syntax that they are stored in.

        Raises:
            NotOfferedError: the archive cannot be reached over HTTP, or has no WADO-RS.
            RetrieveError: it broke off, or refused.
        """
        study = _study_path(study_instance_uid)
        paths = [study] if is_whole_study else [_path_of(study, one) for one in instances]
        come = 0
        failures: list[RetrieveError] = []
        with _client(self._remote) as client:
            for path in paths:
                try:
                    for content in self._instances_at(client, path):
                        _give(content, take)
                        come += 1
                        progress(come)
                except RetrieveError as error:
                    if is_whole_study:
                        raise
                    failures.append(error)  # the others can be had all the same
        if failures:
            raise RetrieveError(str(failures[0]))

    def _instances_at(self, client: httpx.Client, path: str) -> Iterator[bytes]:
        with (
            _http_errors(self._remote),
            client.stream("GET", path, headers={"Accept": _AS_STORED}) as answer,
        ):
            _require_success(answer, self._remote, "WADO-RS")
            content_type = answer.headers.get("content-type", "")
            if content_type.split(";")[0].strip() == "application/dicom":
                yield answer.read()
                return
            cutter = PartCutter(
                dicom_boundary(content_type), largest_part_bytes=_LARGEST_INSTANCE_BYTES
            )
            try:
                for chunk in answer.iter_bytes():
                    for part in cutter.feed(chunk):
                        yield part.content()
                        part.close()
                cutter.finish()
            finally:
                cutter.close()


def _study_path(study_instance_uid: str) -> str:
    return f"studies/{_quoted(study_instance_uid)}"


def _path_of(study: str, one: FoundInstance) -> str:
    series, instance = _quoted(one.series_instance_uid), _quoted(one.sop_instance_uid)
    return f"{study}/series/{series}/instances/{instance}"


def _quoted(uid: str) -> str:
    # An archive's answer is not to be trusted to be a UID and not a path.
    return quote(uid, safe="")


def _give(content: bytes, take: Take) -> None:
    try:
        take(read_instance(content))
    except RefusedInstanceError:
        return  # what is no DICOM has no UID to be named by; the instance counts as missing


def _client(remote: RemoteSettings) -> httpx.Client:
    headers = {}
    if remote.dicomweb_authorization:
        headers["Authorization"] = remote.dicomweb_authorization
    return httpx.Client(
        base_url=remote.dicomweb_url.rstrip("/") + "/", headers=headers, timeout=remote.timeout_s
    )


def _get(
    client: httpx.Client, remote: RemoteSettings, path: str, parameters: httpx.QueryParams
) -> list[Any]:
    with _http_errors(remote):
        answer = client.get(path, params=parameters, headers={"Accept": "application/dicom+json"})
    if answer.status_code == httpx.codes.NO_CONTENT:
        return []
    _require_success(answer, remote, "QIDO-RS")
    try:
        found = answer.json()
    except ValueError as error:
        raise RetrieveError(f"{remote.name} answers QIDO-RS with what is no JSON") from error
    return found if isinstance(found, list) else []


def _dataset(remote: RemoteSettings, item: Any) -> Dataset:
    try:
        return Dataset.from_json(item)
    except Exception as error:  # whatever an archive's JSON makes the parser raise
        raise RetrieveError(f"{remote.name} answers QIDO-RS with invalid DICOM JSON") from error


def _require_success(answer: httpx.Response, remote: RemoteSettings, service: str) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    text = f"{remote.name} answers {service} with HTTP status {status}"
    # Not there, not allowed that way, not in that form: another way may do.
    if status in (404, 405, 406, 415, 501):
        raise NotOfferedError(text)
    raise RetrieveError(text)


@contextmanager
def _http_errors(remote: RemoteSettings) -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise NotOfferedError(f"{remote.name} cannot be reached over DICOMweb: {error}") from error
    except httpx.TransportError as error:
        raise RetrieveError(
            f"{remote.name} broke off over DICOMweb: {type(error).__name__}"
        ) from error
    except MultipartError as error:
        raise RetrieveError(f"{remote.name} answers WADO-RS wrongly: {error}") from error
