"""Tiny packages and warm hosts that the tests of the models share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.models.tiny import make_classification, make_segmentation
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage
from triage.settings import WorkerSettings


@pytest.fixture(scope="session")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A bundle that marks every voxel above LESION_FROM_HU."""
    return make_segmentation(tmp_path_factory.mktemp("registry") / "segmentation")


@pytest.fixture(scope="session")
def classification(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """An exported program that says how bright the halves of an image are."""
    return make_classification(tmp_path_factory.mktemp("registry") / "classification")


@pytest.fixture(scope="session")
def hosts() -> Iterator[ModelHosts]:
    """Warm hosts; a test that ends one leaves the others to start it again."""
    hosts = ModelHosts(WorkerSettings(device="cpu"))
    yield hosts
    hosts.close()
