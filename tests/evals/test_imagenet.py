"""The ImageNet pack: which sets it has, and what is said of those whose data is missing."""

import generated
import objectnet_folder
import pytest

from vit_jax.data.formats.imagenet import IMAGENET_A
from vit_jax.evals.imagenet import PACKS, open_pack
from vit_jax.types import UserError


def test_a_model_of_other_classes_is_refused_before_any_set_is_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"scores the 1,000 classes of ImageNet and the model has 21,843; fine-tune"):
        open_pack("imagenet", 21843, data_dir=str(tmp_path))


def test_every_set_that_is_missing_has_the_action_that_supplies_it(tmp_path):
    ready, missing = open_pack("imagenet", 1000, data_dir=str(tmp_path))
    assert ready == {}
    assert set(missing) == set(PACKS["imagenet"]) == {"val", "real", "v2", "a", "r", "sketch", "objectnet"}
    for key, command in {
        "val": "`vit_jax prepare imagenet2012 --data-dir=",
        "real": "`vit_jax prepare imagenet2012_real --data-dir=",
        "v2": "`vit_jax prepare imagenet_v2/matched-frequency --data-dir=",
        "a": "`vit_jax prepare imagenet_a --data-dir=",
        "objectnet": "objectnet-1.0.zip",
    }.items():
        assert command in missing[key], missing[key]


def test_a_set_that_is_there_is_opened_with_the_options_of_all_and_its_own_recipe(tmp_path):
    def first_class(example, split, index):
        example["label"] = IMAGENET_A.split()[index]

    generated.prepare("imagenet_a", tmp_path, {"test": 3}, first_class)
    options = {"data_dir": str(tmp_path), "resolution": (16, 16), "batch_size": 8, "bootstrap": 0}
    ready, missing = open_pack("imagenet", 1000, **options)
    assert set(ready) == {"a"}
    assert len(missing) == 6
    card = ready["a"]
    assert (card.spec.num_examples, len(card.spec.competing)) == (3, 200)
    assert (card.dataset, card.split, card.recipe, card.resolution) == ("imagenet_a", "test", "eval", (16, 16))


def test_objectnet_alone_is_cropped_by_its_own_protocol_and_has_its_own_classes(tmp_path):
    images, right = {"banana": 2}, {"Banana": "class 954"}
    names = [f"class {i}" for i in range(1000)]
    objectnet_folder.write(tmp_path / "objectnet-1.0", images, {"banana": "Banana"}, right, names)
    ready, _ = open_pack("imagenet", 1000, data_dir=str(tmp_path))
    assert set(ready) == {"objectnet"}
    card = ready["objectnet"]
    assert (card.recipe, card.spec.num_examples, card.spec.num_classes) == ("objectnet", 2, 1000)
    assert {key for key, member in PACKS["imagenet"].items() if member.recipe != "eval"} == {"objectnet"}
