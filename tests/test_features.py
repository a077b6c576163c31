"""Features of whole data sets: the model's numbers, ids and labels, interrupted and continued, by folder and by photographs."""

import json
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest
from safetensors import safe_open

from vit_jax import load_model, partition, read_images
from vit_jax.convert.load import load
from vit_jax.data.open import open_source
from vit_jax.evals.stored import read_features
from vit_jax.features import make_compute, write_features
from vit_jax.types import UserError

MODEL = str(Path(__file__).resolve().parent / "golden" / "timm_token")  # 16x16 pixels, two blocks of width 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """FOLDER/train/{a,b}/*.png: 11 images of 16x16, the fourth in the split's order damaged."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, count in (("a", 6), ("b", 5)):
        (root / "train" / name).mkdir(parents=True)
        for i in range(count):
            PIL.Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / "train" / name / f"{i}.png")
    source = open_source(str(root), "train")
    (root / source.ids([3])[0]).write_bytes(b"no image")
    return root


def expected(files):
    """By the public functions of Python's interface."""
    module, params = load_model(MODEL)
    return module.apply({"params": params}, read_images(files, (16, 16)), capture=("layers",))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_features_labels_and_ids_are_the_splits_and_a_damaged_image_is_left_out(folder, tmp_path, format):
    done = write_features(
        MODEL, str(folder), tmp_path / "out", split="train", format=format, batch_size=8, shard_size=8
    )
    source = open_source(str(folder), "train")
    ids = source.ids(range(11))
    assert (done.count, done.shards, done.kept, done.missing) == (10, 2, 0, [ids[3]])
    stored = read_features(tmp_path / "out")
    assert stored.ids == ids[:3] + ids[4:]
    assert stored.index.tolist() == [0, 1, 2, *range(4, 11)]
    assert stored.labels.tolist() == [int(Path(name).parent.name == "b") for name in stored.ids]
    want = expected([folder / name for name in stored.ids]).pre_logits
    np.testing.assert_allclose(stored.features, want, rtol=1e-4, atol=1e-5)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["features-00000-of-00002." + format, "features-00001-of-00002." + format, "features.json"]


@pytest.mark.slow
def test_an_interrupted_run_continues_after_its_last_whole_shard(folder, tmp_path):
    out, options = tmp_path / "out", {"split": "train", "batch_size": 8, "shard_size": 8, "layer": "1", "pool": "mean"}

    def stop_after_one(shards, total):
        assert total == 2
        yield from shards[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(MODEL, str(folder), out, watch=stop_after_one, **options)
    with pytest.raises(UserError, match=r"1 shard of 2 missing, features-00001-of-00002.safetensors first"):
        read_features(out)
    whole = (out / "features-00000-of-00002.safetensors").read_bytes()
    (out / ".features-00001-of-00002.safetensors.1.partial").write_bytes(b"half")
    done = write_features(MODEL, str(folder), out, **options)
    assert (done.count, done.shards, done.kept) == (10, 2, 1)
    assert (out / "features-00000-of-00002.safetensors").read_bytes() == whole
    assert not list(out.glob(".*"))
    stored = read_features(out)
    tokens = np.asarray(expected([folder / name for name in stored.ids]).layers[0])
    np.testing.assert_allclose(
        stored.features, tokens[:, 1:].mean(axis=1), rtol=1e-4, atol=1e-5
    )  # less the class token
    with pytest.raises(UserError, match=r"holds features of another layer \('1', here '2'\); give another --to"):
        write_features(MODEL, str(folder), out, **options | {"layer": "2"})
    with pytest.raises(UserError, match="1 of 8 images could not be decoded"):
        write_features(MODEL, str(folder), tmp_path / "strict", **options | {"max_corrupt": 0})


@pytest.mark.slow
def test_photographs_need_no_classes_and_have_no_labels(folder, tmp_path):
    files = sorted(str(path) for path in (folder / "train" / "a").glob("*.png") if path.read_bytes() != b"no image")
    done = write_features(MODEL, files, tmp_path / "out", layer="tokens", half=True, batch_size=8)
    stored = read_features(done.folder)
    assert stored.ids == files
    assert stored.labels is None
    assert (stored.features.shape, stored.features.dtype) == ((len(files), 17, 24), np.float16)
    np.testing.assert_allclose(stored.features, expected(files).tokens, rtol=2e-3, atol=2e-3)
    with safe_open(tmp_path / "out" / "features-00000-of-00001.safetensors", "numpy") as shard:
        assert json.loads(shard.metadata()["ids"]) == files


@pytest.mark.slow
def test_every_device_computes_its_rows_and_the_numbers_are_those_of_one(folder, tmp_path, monkeypatch):
    rows, make_mesh, device_get = [], partition.make_mesh, jax.device_get

    def get(parts):
        rows.append([shard.data.shape[0] for shard in parts[0].addressable_shards])
        return device_get(parts)

    monkeypatch.setattr(jax, "device_get", get)
    features = {}
    for devices in (8, 1):
        monkeypatch.setattr(partition, "make_mesh", lambda fsdp, n=devices: make_mesh(fsdp, jax.devices()[:n]))
        done = write_features(MODEL, str(folder), tmp_path / str(devices), split="train", batch_size=8)
        features[devices] = read_features(done.folder).features
    assert rows == [[1] * 8] * 2 + [[8]] * 2  # 11 images, of which one is damaged: the second batch is partial
    assert len(features[8]) == 10
    np.testing.assert_allclose(features[8], features[1], atol=1e-5)


def test_layers_that_a_model_lacks_are_refused(tmp_path):
    loaded = load(MODEL, stored_pixels=True)
    image = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="layer=3 is none of the model's 2 blocks"):
        jax.eval_shape(make_compute(loaded, "3", "none", False), loaded.params, image)
    with pytest.raises(UserError, match="layer=logits and pool=none; expected pre_logits, pooled, tokens or a block"):
        make_compute(loaded, "logits", "none", False)
    with pytest.raises(UserError, match="pool=mean is for the tokens"):
        make_compute(loaded, "pooled", "mean", False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        write_features(MODEL, [__file__], tmp_path)
    with pytest.raises(UserError, match="no file in it or below matches"):
        write_features(MODEL, str(tmp_path), tmp_path / "out")
