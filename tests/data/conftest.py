"""Fixtures of the data tests: a scratch folder of prepared data sets, never the user's own."""

import pytest


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """A folder in which `digits` is prepared."""
    from vit_jax.data.prepare.prepare import prepare

    folder = tmp_path_factory.mktemp("tfds")
    prepare("digits", data_dir=str(folder))
    return str(folder)


@pytest.fixture(autouse=True)
def no_home(monkeypatch, tmp_path):
    """A test that forgets data_dir gets an empty folder."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds_default"))
