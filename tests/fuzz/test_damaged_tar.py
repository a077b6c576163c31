"""Fuzz of tar shards and of their index: a damaged one is samples, one error, or corrupt images."""

import io
import tarfile

import mutations
import numpy as np
import PIL.Image
import pytest

from vit_jax.data.formats import tarstore
from vit_jax.data.image.decode import decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.open import open_source
from vit_jax.types import UserError

CONTROL = {chr(code) for code in (*range(32), *range(127, 160))}


@pytest.fixture(scope="module")
def shard():
    """Twelve samples, with a long name, a link, a folder and JSON among them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        for i in range(12):
            picture = io.BytesIO()
            PIL.Image.fromarray(np.full((4, 5, 3), i, np.uint8)).save(picture, "PNG")
            stem = f"{'long/' * 30 if i == 5 else ''}{i:02}{'é' if i == 6 else ''}"
            label = (f"{stem}.json", b'{"label": 2, "more": {"a": [1, "\\u00e9"]}}') if i % 3 else (f"{stem}.cls", b"1")
            for name, data in ((f"{stem}.png", picture.getvalue()), label):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("folder/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../00.png"
        file.addfile(link)
    return out.getvalue()


def read_all(folder):
    """Opens the shards and decodes every image, as a run would."""
    source = open_source(str(folder), "train")
    assert len(source) == source.spec.num_examples
    for index in range(min(len(source), 50)):
        data, label, name = source.read(index)
        assert 0 <= label < source.spec.num_classes
        name.encode()
        assert not set(name) & CONTROL
        try:
            decode(data)
        except CorruptImage:
            continue


def test_a_damaged_shard_is_samples_or_one_error(shard, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, rng in mutations.cases():
        place = tmp_path / f"{number}"
        place.mkdir()
        (place / "train-0.tar").write_bytes(mutations.mutate(shard, rng))
        if number % 5 == 0:
            (place / "classes.txt").write_bytes(mutations.mutate(b"ant\nbee\ncow\n", rng))
        with mutations.judged(number, UserError):
            read_all(place)


def test_a_damaged_index_is_used_if_it_is_whole_and_else_made_anew(shard, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "train-0.tar").write_bytes(shard)
    read_all(tmp_path)
    good = (tmp_path / tarstore.FILE).read_bytes()
    with np.load(tmp_path / tarstore.FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for number, rng in mutations.cases():
        if number % 2:
            (tmp_path / tarstore.FILE).write_bytes(mutations.mutate(good, rng))
        else:  # a zip file that is whole, of arrays that are not
            bad = dict(arrays)
            name = str(rng.choice(sorted(bad)))
            altered = mutations.mutate(bad[name].tobytes() or b"\0", rng)
            kind = bad[name].dtype if rng.random() < 0.7 else np.dtype(rng.choice(["u1", "f4", "i8", "<U3"]))
            bad[name] = np.frombuffer(altered[: len(altered) // kind.itemsize * kind.itemsize], kind)
            if bad[name].size == arrays[name].size and rng.random() < 0.7:
                bad[name] = bad[name].reshape(arrays[name].shape)
            np.savez(tmp_path / tarstore.FILE, **bad)
        with mutations.judged(number, UserError):
            read_all(tmp_path)
