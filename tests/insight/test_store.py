"""The files of an explanation: readable by others, replaced as a whole, and a folder that cannot be written is a mistake."""

import json

import numpy as np
import pytest

from vit_jax.insight.explain import Explained
from vit_jax.insight.store import make_folder, save, tables
from vit_jax.types import UserError

ARRAYS = {
    "filters_variance": np.array([0.75, 0.25]),
    "distance": np.array([[1.5, 2.5]]),
    "entropy": np.array([[0.5, 0.25]]),
    "norms": np.array([[1.0, 3.0]]),
    "cka": np.array([[1.0, 0.5]]),
    "probabilities": np.array([0.875], np.float32),
}
FACTS = {"norms": ["patches, median", "patches, largest"], "pictures": ["a, b.png"], "classes": ["cat"]}


def test_tables_count_layers_and_heads_from_one_and_arrays_come_back(tmp_path):
    to = tmp_path / "new" / "page"
    make_folder(to)
    save(Explained(ARRAYS, FACTS), to)
    read = {file.name: file.read_text() for file in to.glob("*.csv")}
    assert read == {
        "filters.csv": "component,share_of_variance\n1,0.75\n2,0.25\n",
        "heads.csv": "layer,head,distance_pixels,entropy_nats\n1,1,1.5,0.5\n1,2,2.5,0.25\n",
        "norms.csv": 'layer,"patches, median","patches, largest"\n1,1.0,3.0\n',
        "cka.csv": "layer,other_layer,cka\n1,1,1.0\n1,2,0.5\n",
        "pictures.csv": 'image,class,probability\n"a, b.png",cat,0.875\n',
    }
    with np.load(to / "explain.npz") as stored:
        assert {name: stored[name].tolist() for name in stored} == {name: x.tolist() for name, x in ARRAYS.items()}
    assert json.loads((to / "explain.json").read_text()) == FACTS | {"tables": sorted(read)}
    assert not list(to.glob(".*"))


def test_a_table_of_objects_has_a_row_for_each_query_of_each_image():
    arrays = {
        "filters_variance": np.array([1.0]),
        "boxes": np.array([[[0, 1, 2, 3], [4, 5, 6.5, 7]], [[0, 0, 1, 1], [2, 2, 3, 3]]], np.float32),
        "box_classes": np.array([[1, 0], [1, 1]], np.int32),
        "box_scores": np.array([[0.75, 0.5], [0.25, 0.125]], np.float32),
    }
    facts = {"pictures": ["a.png", "b.png"], "object_classes": ["cat", "dog"]}
    assert tables(Explained(arrays, facts))["objects.csv"] == (
        "image,class,score,left,top,right,bottom\n"
        "a.png,dog,0.75,0.0,1.0,2.0,3.0\n"
        "a.png,cat,0.5,4.0,5.0,6.5,7.0\n"
        "b.png,dog,0.25,0.0,0.0,1.0,1.0\n"
        "b.png,dog,0.125,2.0,2.0,3.0,3.0\n"
    )


def test_a_file_in_the_way_and_a_full_disk_are_mistakes_and_older_results_stay(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot be written to .*file.*another folder with --to"):
        make_folder(tmp_path / "file")
    save(Explained(ARRAYS, FACTS), tmp_path)
    before = (tmp_path / "explain.npz").read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match=r"No space left on device; free space"):
        save(Explained(ARRAYS | {"cka": np.zeros((1, 2))}, FACTS), tmp_path)
    assert (tmp_path / "explain.npz").read_bytes() == before
