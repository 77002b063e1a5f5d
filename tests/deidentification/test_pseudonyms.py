"""Pseudonyms, and the secret that makes them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydicom.uid import UID

from triage.deidentification.pseudonyms import DeidentificationError, Pseudonyms, site_key


def test_the_secret_is_made_once_and_only_ours_to_read(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(site_key(folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1
    assert site_key(folder) == keys[0]
    [file] = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_damaged_secret_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "deidentification.key").write_bytes(b"short")
    with pytest.raises(DeidentificationError, match="should have 32 bytes and has 5; restore"):
        site_key(tmp_path)


def test_pseudonyms_depend_on_key_destination_and_value() -> None:
    ours = Pseudonyms(b"a" * 32, "research")
    others = [
        Pseudonyms(b"b" * 32, "research"),
        Pseudonyms(b"a" * 32, "vendor"),
    ]
    assert UID(ours.uid("1.2.3")).is_valid
    assert len({ours.uid("1.2.3"), ours.uid("1.2.4"), *(o.uid("1.2.3") for o in others)}) == 4
    names = {ours.patient_id("1", ""), ours.patient_id("1", "NORTH"), ours.patient_id("2", "")}
    assert len(names | {o.patient_id("1", "") for o in others}) == 5
    days = [ours.shift(str(n), "").days for n in range(200)]
    assert -4016 < min(days) < max(days) <= -366
    assert len(set(days)) > 150
