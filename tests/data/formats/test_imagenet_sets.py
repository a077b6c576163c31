"""ImageNet's family and the few-shot sets, through TFDS's own builders on generated data."""

from pathlib import Path

import generated
import numpy as np
import pytest
import tensorflow_datasets as tfds

from vit_jax.data.formats.imagenet import COMPETING
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare.check import KNOWN, check
from vit_jax.data.splits import parse_split
from vit_jax.data.stream.loader import eval_batches, train_batches
from vit_jax.targets import ClassId, ClassSet
from vit_jax.types import UserError

WORDNET_IDS = Path(tfds.__path__[0], "datasets/imagenet2012/labels.txt").read_text().split()
SETS = {
    "imagenet2012": {"train": 12, "validation": 10},
    "imagenet2012_real": {"validation": 10},
    "imagenet_v2/matched-frequency": {"test": 10},
    "imagenet_v2/topimages": {"test": 4},
    "imagenet_a": {"test": 10},
    "imagenet_r": {"test": 10},
    "imagenet_sketch": {"test": 10},
}
# Labels of example i of ReaL: one, several, none.
REAL = [[], [970, 795], [230, 231], [809], [516, 850], [57], [0, 999], [], [5, 6, 7], [334]]
# As the published evaluation code numbers them.
FIRST = {"imagenet_a": [6, 11, 13, 15, 17, 22, 23, 27, 30, 37], "imagenet_r": [1, 2, 4, 6, 8, 9, 11, 13, 22, 23]}
# Builder and version that it has, splits that the few-shot protocol names, classes.
FEWSHOT = {
    "caltech101": (("train", "test"), 102),
    "dtd": (("train", "test"), 47),
    "uc_merced": (("train[:10]", "train[10:]"), 21),
    "cars196": (("train", "test"), 196),
    "oxford_flowers102": (("train", "test"), 102),
    "oxford_iiit_pet": (("train", "test"), 37),
    "cifar100": (("train", "test"), 100),
    "caltech_birds2011": (("train", "test"), 200),
}


def amend(name):
    def change(example, split, index):
        if name == "imagenet2012_real":
            example["real_label"], example["file_name"] = REAL[index], f"{index}"
        elif name in COMPETING:
            example["label"] = COMPETING[name].split()[index * 20]
        elif name.startswith("imagenet"):
            example["label"] = 100 * index % 1000

    return change


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The family, ten examples a split."""
    folder = tmp_path_factory.mktemp("imagenet")
    for name, splits in SETS.items():
        generated.prepare(name, folder, splits, amend(name))
    return str(folder)


@pytest.mark.parametrize("name", ["imagenet2012", "imagenet_v2", "imagenet_v2/matched-frequency", "imagenet_sketch"])
def test_sets_of_all_classes_are_read_as_imagenet_is(name, prepared):
    source = open_source(name, "validation" if name == "imagenet2012" else "test", prepared)
    assert (len(source), source.spec.num_classes, source.spec.competing) == (10, 1000, ())
    assert source.spec.class_names == tuple(sorted(WORDNET_IDS)) == tuple(WORDNET_IDS)
    assert sorted(source.read(i)[1] for i in range(10)) == list(range(0, 1000, 100))
    (batch,) = eval_batches(source, make_transform("eval", (16, 16)), batch_size=10, max_corrupt=0)
    assert (batch.mask.sum(), batch.target.dtype, batch.target.shape) == (10, np.int32, (10,))


def test_v2_without_a_config_is_the_matched_frequency_set(prepared):
    assert "matched-frequency" in open_source("imagenet_v2", "test", prepared).folder
    assert len(open_source("imagenet_v2/topimages", "test", prepared)) == 4


def test_real_has_sets_of_labels_and_an_empty_one_stays_empty(prepared):
    source = open_source("imagenet2012_real", "validation", prepared, multi_label=True)
    assert (len(source), source.spec.target) == (10, ClassSet(1000))
    found = [source.read(i)[1] for i in range(10)]
    assert sorted(found) == sorted(map(tuple, REAL))
    (batch,) = eval_batches(source, make_transform("eval", (16, 16)), batch_size=16, max_corrupt=0)
    assert batch.target.shape == (16, 1000)
    assert [tuple(np.flatnonzero(row)) for row in batch.target[:10]] == [tuple(sorted(labels)) for labels in found]
    assert batch.mask.tolist() == [1] * 10 + [0] * 6


def test_sets_of_labels_are_for_evaluation_only(prepared):
    with pytest.raises(UserError, match=r"imagenet2012_real: its examples have sets of labels.*one label an image"):
        open_source("imagenet2012_real", "validation", prepared)


def test_a_label_out_of_range_in_a_set_is_an_error(prepared):
    source = open_source("imagenet2012_real", "validation", prepared, multi_label=True)
    source.spec = source.spec._replace(target=ClassSet(900))
    with pytest.raises(UserError, match=r"has label .*970.*, expected 0 to 899"):
        list(eval_batches(source, make_transform("eval", (8, 8)), batch_size=10, max_corrupt=0))


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_two_hundred_classes_compete_on_a_and_r(name, prepared):
    source = open_source(name, "test", prepared)
    assert source.spec.num_classes == 1000
    competing = source.spec.competing
    assert (len(competing), len(set(competing))) == (200, 200)
    assert list(competing) == sorted(competing)
    assert list(competing[:10]) == FIRST[name]
    assert {source.read(i)[1] for i in range(10)} == set(competing[::20])
    assert isinstance(source.spec.target, ClassId)


@pytest.mark.parametrize("name", SETS)
def test_check_reads_the_family(name, prepared, monkeypatch):
    known = KNOWN.get(name, KNOWN["imagenet_v2"])
    monkeypatch.setitem(KNOWN, name, known._replace(splits=SETS[name]))
    found = check(name, prepared)
    assert found.state == "ready", found


def prepare_own(folder, features, label, counts):
    """A builder of the user's own, without code that the project could import."""
    import io

    import PIL.Image

    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (10, 20, 30)).save(file, "PNG")

    class Imagenet21k(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {split: self._generate_examples(count) for split, count in counts.items()}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, {"image": io.BytesIO(file.getvalue()), "label": label(i)}

    Imagenet21k.name = "imagenet21k"
    Imagenet21k(data_dir=str(folder)).download_and_prepare(file_format="array_record")


@pytest.fixture
def no_registration():
    """Classes of builders that a test defines are unknown again afterwards."""
    before = dict(tfds.core.registered._DATASET_REGISTRY)
    yield
    tfds.core.registered._DATASET_REGISTRY.clear()
    tfds.core.registered._DATASET_REGISTRY.update(before)


def test_imagenet21k_is_read_from_the_users_own_copy(tmp_path, no_registration):
    image = tfds.features.Image(shape=(None, None, 3))
    features = {"image": image, "label": tfds.features.ClassLabel(num_classes=21843)}
    prepare_own(tmp_path, features, lambda i: 1000 * i, {"full": 20})
    train = open_source("imagenet21k", "full[4:]", str(tmp_path))
    minival = open_source("imagenet21k", "full[2:4]", str(tmp_path))
    assert (len(train), len(minival), train.spec.num_classes) == (16, 2, 21843)
    whole = open_source("imagenet21k", "full", str(tmp_path))
    labels = [whole.read(i)[1] for i in range(20)]
    assert sorted(labels) == list(range(0, 20000, 1000))
    assert [minival.read(i)[1] for i in range(2)] == labels[2:4]
    assert [train.read(i)[1] for i in range(16)] == labels[4:]
    loader = train_batches(train, make_transform("pretrain", (8, 8)), batch_size=8, seed=0)
    assert next(loader).target.shape == (8,)
    loader.close()
    with pytest.raises(UserError, match=r"the splits are full \(20\)"):
        open_source("imagenet21k", "train", str(tmp_path))


def test_imagenet21ks_splits_are_disjoint_and_whole():
    # 14,197,122 images, one split; the release held out the first 51,200, half for validation.
    parts = [
        parse_split("imagenet21k", s, {"full": 14_197_122})
        for s in ("full[51200:]", "full[25600:51200]", "full[:25600]")
    ]
    sizes = [sum(p.stop - p.start for p in part) for part in parts]
    assert sizes == [14_145_922, 25_600, 25_600]
    assert parts[0][0].start == parts[1][0].stop == 51_200
    assert parts[1][0].start == parts[2][0].stop == 25_600


def test_imagenet21k_with_several_labels_an_image_is_refused_where_one_is_needed_and_trains_with_sets(
    tmp_path, no_registration
):
    labels = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=50))
    prepare_own(tmp_path, {"image": tfds.features.Image(), "label": labels}, lambda i: [i, 2 * i], {"full": 5})
    with pytest.raises(
        UserError, match=r"expected one label an image here. Train on it with config.objective.name=sigmoid"
    ):
        open_source("imagenet21k", "full", str(tmp_path))
    source = open_source("imagenet21k", "full", str(tmp_path), multi_label=True)
    assert sorted(source.read(i)[1] for i in range(5)) == [(i, 2 * i) for i in range(5)]


@pytest.fixture(scope="module")
def fewshot_sets(tmp_path_factory):
    """Every set of the few-shot list."""
    folder = tmp_path_factory.mktemp("fewshot")
    for name in FEWSHOT:
        generated.prepare(name, folder, {"train": 24, "test": 12})
    return str(folder)


@pytest.mark.parametrize("name", FEWSHOT)
def test_every_few_shot_set_is_read_through_its_real_builder(name, fewshot_sets):
    (train, test), classes = FEWSHOT[name]
    assert name in KNOWN
    for split in (train, test):
        source = open_source(name, split, fewshot_sets)
        assert source.spec.target == ClassId(classes)
        batches = list(eval_batches(source, make_transform("fewshot", (16, 16)), batch_size=8, max_corrupt=0))
        assert sum(batch.mask.sum() for batch in batches) == len(source) > 0
        assert all(0 <= batch.target.min() <= batch.target.max() < classes for batch in batches)
