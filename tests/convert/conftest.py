"""Fixtures of the tests of downloads: a server of weights, and the cache that they go to."""

import pytest
from weights_server import Server

from vit_jax.convert import download


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "bucket" / "vit_models").mkdir(parents=True)
    server = Server(tmp_path / "bucket")
    monkeypatch.setenv("VIT_JAX_WEIGHTS", server.address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "CHUNK_BYTES", 2**16)
    monkeypatch.setattr(download, "WAIT_S", 0.01)
    yield server
    server.close()


@pytest.fixture
def cached(tmp_path):
    return tmp_path / "cache" / "vit_jax" / "released" / "vit_models"
