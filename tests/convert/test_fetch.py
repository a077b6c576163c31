"""Checkpoints at URLs, on fsspec's store in memory, which the tests fill with files made locally."""

import os
import tempfile
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
from etils import epath

from vit_jax.convert.fetch import fetched, fingerprint_of
from vit_jax.convert.load import fingerprint, load_model
from vit_jax.models.build import abstract_params
from vit_jax.models.vit import VisionTransformer
from vit_jax.train.checkpoint import write_params
from vit_jax.types import UserError

URL = "memory://fetch/run"
MEMORY = fsspec.filesystem("memory")
SIZES = {"num_classes": 3, "width": 8, "depth": 1, "mlp_dim": 8, "num_heads": 2, "patch_size": (4, 4)}


@pytest.fixture(autouse=True)
def clean():
    yield
    MEMORY.store.clear()


def upload(folder, url=URL):
    """Copies a folder to a URL."""
    for path in folder.rglob("*"):
        if path.is_file():
            MEMORY.pipe(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def below(path):
    return sorted(os.path.relpath(os.path.join(place, f), path) for place, _, files in os.walk(path) for f in files)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(parameters, workdir of a run that holds them as step 0)."""
    folder = tmp_path_factory.mktemp("saved")
    shapes = abstract_params(VisionTransformer(**SIZES), (8, 8))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    model = {"name": "vit", **SIZES, "patch_size": [4, 4]}
    write_params(epath.Path(folder), params, {"grid": [2, 2], "config": {"model": model}})
    return params, folder


@pytest.fixture
def weights(saved):
    """The parameters of a run that is at the URL."""
    upload(saved[1])
    return saved[0]


@pytest.mark.parametrize("name", ["", "@last", "@0", "/checkpoints/0"])
def test_a_run_s_weights_are_those_that_were_written(weights, name):
    _, params = load_model(URL + name)
    assert np.array_equal(params["head"]["kernel"], weights["head"]["kernel"])
    assert np.array_equal(params["embedding"]["kernel"], weights["embedding"]["kernel"])


def test_only_the_files_that_are_read_are_fetched_and_nothing_stays():
    for step, score in ((2, 0.5), (4, 0.25)):
        for item in ("params", "opt_state", "average", "meta"):
            MEMORY.pipe(f"{URL}/checkpoints/{step}/{item}/data", b"x")
        MEMORY.pipe(f"{URL}/checkpoints/{step}/metrics/metrics", b'{"eval/test/top1": %f}' % score)
    MEMORY.pipe(f"{URL}/metrics.jsonl", b"")
    scores = [f"checkpoints/{step}/metrics/metrics" for step in (2, 4)]
    for name, step, item in (("", 4, "params"), ("@best", 2, "params"), ("", 4, "average")):
        with fetched(URL + name, item=item) as path:
            expected = [*scores, f"checkpoints/{step}/meta/data", f"checkpoints/{step}/{item}/data"]
            assert below(path.partition("@")[0]) == sorted(expected)
        assert not os.path.exists(path)
    MEMORY.pipe(f"{URL}/checkpoints/4.uploading", b"")
    with fetched(URL) as path:
        assert "checkpoints/2/params/data" in below(path)


def test_a_step_that_is_not_there_is_an_error_that_names_the_url(weights):
    with pytest.raises(UserError, match=rf"^{URL}@5: the run {URL} has no checkpoint @5; expected one of @last, @0$"):
        load_model(f"{URL}@5")
    with pytest.raises(UserError, match=rf"^{URL}_other is neither a file nor a folder; expected an npz"):
        load_model(f"{URL}_other")
    with pytest.raises(UserError, match=rf"^{URL}/checkpoints/0 holds no averaged weights"):
        load_model(URL, weights="average")


def test_a_file_comes_with_the_files_that_describe_it_and_a_folder_without_pickles():
    for name in ("a.npz", "a.json", "b.npz", "hf/model.safetensors", "hf/config.json", "hf/pytorch_model.bin"):
        MEMORY.pipe(f"{URL}/{name}", name.encode())
    with fetched(f"{URL}/a.npz") as path:
        assert below(os.path.dirname(path)) == ["a.json", "a.npz"]
        assert Path(path).read_bytes() == b"a.npz"
    with fetched(f"{URL}/b.npz") as path:
        assert below(os.path.dirname(path)) == ["b.npz"]
    with fetched(f"{URL}/hf/model.safetensors") as path:
        assert below(os.path.dirname(path)) == ["config.json", "model.safetensors"]
    with fetched(f"{URL}/hf") as path:
        assert below(path) == ["config.json", "model.safetensors", "pytorch_model.bin"]
        assert os.path.getsize(os.path.join(path, "pytorch_model.bin")) == 0


def test_a_name_that_leads_out_of_the_copy_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hostile = {f"/fetch/run/{name}": {"size": 1, "name": name} for name in ("model.safetensors", "../../escaped.json")}
    monkeypatch.setattr(type(MEMORY), "find", lambda *_, **__: hostile)
    with pytest.raises(UserError, match=r"lists the name '\.\./\.\./escaped\.json', which is not in it"):
        load_model(URL)
    assert list(tmp_path.iterdir()) == []


def test_other_files_at_a_url_have_another_fingerprint():
    MEMORY.pipe(f"{URL}/a", b"12")
    assert fingerprint(URL) == fingerprint_of(URL) == [["a", 2]]
