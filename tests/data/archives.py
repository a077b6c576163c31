"""The files that TFDS's builders download, generated small in their real names, layouts and formats.

Each function writes a data set's files into a folder and returns what a reader must find: {split: {key: (pixels, label)}},
with the key that the record holds, or its label where it holds none.
"""

import gzip
import io
import json
import tarfile
import zipfile

import cv2
import numpy as np
import PIL.Image

RNG = np.random.default_rng(7)


def pixels(height=32, width=32, channels=3):
    """Smooth, so that JPEG changes it little."""
    corners = RNG.integers(0, 256, (2, 2, channels), np.uint8)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)


def file_of(image, fmt="JPEG", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, fmt, **options)
    return file.getvalue()


def tar(files, mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def cifar10(folder):
    files = {"cifar-10-batches-bin/batches.meta.txt": "\n".join("abcdefghij").encode()}
    expected = {"train": {}, "test": {}}
    for file in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        data = b""
        for _ in range(2):
            split = "test" if file.startswith("test") else "train"
            index = len(expected[split])
            image = pixels()
            expected[split][f"{split}_{index:05d}"] = (image, index % 10)
            data += bytes([index % 10]) + image.transpose(2, 0, 1).tobytes()
        files[f"cifar-10-batches-bin/{file}"] = data
    (folder / "cifar-10-binary.tar.gz").write_bytes(tar(files, "w:gz"))
    return expected


def svhn_cropped(folder):
    import scipy.io

    expected = {}
    for split, count in (("train", 4), ("test", 3), ("extra", 2)):
        images = [pixels() for _ in range(count)]
        labels = [(i % 10) or 10 for i in range(count)]  # the digit 0 is stored as 10
        scipy.io.savemat(folder / f"{split}_32x32.mat", {"X": np.stack(images, -1), "y": np.uint8(labels)[:, None]})
        expected[split] = {f"{split}_{i:06d}": (image, i % 10) for i, image in enumerate(images)}
    return expected


def oxford_flowers102(folder):
    import scipy.io

    images = {i: file_of(pixels(40, 30)) for i in range(1, 7)}
    # TFDS declares these archives as tar without gzip, whatever their names are.
    (folder / "102flowers.tgz").write_bytes(tar({f"jpg/image_{i:05d}.jpg": data for i, data in images.items()}, "w:gz"))
    ids = {"trnid": [1, 4], "valid": [2], "tstid": [3, 5, 6]}
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.uint8([[102, 5, 7, 1, 9, 20]])})
    scipy.io.savemat(folder / "setid.mat", {key: np.uint16([value]) for key, value in ids.items()})
    labels = {1: 101, 2: 4, 3: 6, 4: 0, 5: 8, 6: 19}
    splits = {"train": "trnid", "validation": "valid", "test": "tstid"}
    return {s: {f"image_{i:05d}.jpg": (images[i], labels[i]) for i in ids[key]} for s, key in splits.items()}


def smallnorb(folder):
    def matrix(array, magic):
        head = [magic, array.ndim, *array.shape, *[1] * (3 - array.ndim)]
        return gzip.compress(np.array(head, "<i4").tobytes() + array.tobytes())

    expected = {}
    for split, stem in (("train", "5x46789x9x18x6x2x96x96-training"), ("test", "5x01235x9x18x6x2x96x96-testing")):
        images = np.stack([np.stack([pixels(96, 96, 1)[..., 0] for _ in range(2)]) for _ in range(3)])
        azimuths = [0, 34, 6]
        info = np.array([[4, i, a, 0] for i, a in enumerate(azimuths)], "<i4")
        parts = {"dat": matrix(images, 507333717), "cat": matrix(np.arange(3, dtype="<i4"), 507333716)}
        parts["info"] = matrix(info, 507333716)
        for kind, data in parts.items():
            (folder / f"smallnorb-{stem}-{kind}.mat.gz").write_bytes(data)
        expected[split] = {a // 2: (images[i, 0][..., None], a // 2) for i, a in enumerate(azimuths)}
    return expected


def dsprites(folder):
    import h5py

    images = np.stack([(pixels(64, 64, 1)[..., 0] > 99).astype(np.uint8) for _ in range(4)])
    classes = np.array([[0, 0, i, 39 - i, 31 - i, i] for i in range(4)])
    with h5py.File(folder / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5", "w") as file:
        file["imgs"], file["latents/classes"] = images, classes
        file["latents/values"] = classes.astype(np.float64)
    return {"train": {39 - i: (images[i][..., None], 39 - i) for i in range(4)}}


def patch_camelyon(folder):
    import h5py

    expected = {}
    for split, stem in (("train", "train"), ("validation", "valid"), ("test", "test")):
        images = np.stack([pixels(96, 96) for _ in range(3)])
        labels = np.uint8([0, 1, 1])
        for name, array in (("x", images), ("y", labels.reshape(-1, 1, 1, 1))):
            file = io.BytesIO()
            with h5py.File(file, "w") as opened:
                opened[name] = array
            path = folder / f"camelyonpatch_level_2_split_{stem}_{name}.h5.gz"
            path.write_bytes(gzip.compress(file.getvalue()))
        expected[split] = {f"{stem}_{i}": (images[i], int(labels[i])) for i in range(3)}
    return expected


def eurosat(folder):
    names = {"AnnualCrop": 0, "Forest": 1, "SeaLake": 9}
    images = {f"{name}_{i}.jpg": (file_of(pixels(64, 64)), label) for name, label in names.items() for i in (1, 2)}
    zipped(folder / "EuroSAT.zip", {f"2750/{n.split('_')[0]}/{n}": data for n, (data, _) in images.items()})
    return {"train": images}


def dtd(folder):
    images = {
        f"{c}/{c}_000{i}.jpg": (file_of(pixels(30, 40)), k)
        for k, c in ((0, "banded"), (46, "zigzagged"))
        for i in range(3)
    }
    splits = {"train": list(images)[::3], "validation": list(images)[1::3], "test": list(images)[2::3]}
    files = {f"dtd/images/{name}": data for name, (data, _) in images.items()}
    for split, file in (("train", "train1"), ("validation", "val1"), ("test", "test1")):
        files[f"dtd/labels/{file}.txt"] = "\n".join(splits[split]).encode()
    (folder / "dtd-r1.0.1.tar.gz").write_bytes(tar(files, "w:gz"))
    return {split: {name: images[name] for name in names} for split, names in splits.items()}


def clevr(folder):
    files, expected = {}, {}
    for split, stored in (("train", "train"), ("validation", "val"), ("test", "test")):
        names = [f"CLEVR_{stored}_{i:06d}.png" for i in range(2)]
        images = {name: file_of(pixels(32, 48), "PNG") for name in names}
        files |= {f"CLEVR_v1.0/images/{stored}/{name}": data for name, data in images.items()}
        thing = {"color": "red", "material": "metal", "shape": "cube", "size": "large", "rotation": 1.5}
        thing |= {"pixel_coords": [1, 2, 9.2], "3d_coords": [0, 0, 1]}
        scenes = [{"objects": [thing] * (3 + i)} for i in range(2)]
        questions = [{"image_filename": name, "question": "How many?", "answer": "3"} for name in names]
        files[f"CLEVR_v1.0/questions/CLEVR_{stored}_questions.json"] = json.dumps({"questions": questions})
        if stored != "test":
            files[f"CLEVR_v1.0/scenes/CLEVR_{stored}_scenes.json"] = json.dumps({"scenes": scenes})
        counts = [0, 0] if stored == "test" else [3, 4]
        expected[split] = {name: (images[name], counts[i]) for i, name in enumerate(names)}
    zipped(folder / "CLEVR_v1.0.zip", files)
    return expected


def kitti(folder):
    images = {f"{i:06d}.png": pixels(37, 124) for i in range(6)}
    line = "{} 0.00 0 -1.5 10.0 5.0 30.0 20.0 1.5 1.6 3.7 1.0 1.7 {}.5 -1.6\n"
    zipped(folder / "data_object_image_2.zip", {f"training/image_2/{n}": file_of(i, "PNG") for n, i in images.items()})
    notes = {f"training/label_2/{i:06d}.txt": line.format("Car", 5 + i) + line.format("DontCare", 1) for i in range(6)}
    zipped(folder / "data_object_label_2.zip", notes)
    mapping = "\n".join(f"2011_09_26 2011_09_26_drive_{v:04d}_sync {v}" for v in range(3))
    zipped(
        folder / "devkit_object.zip", {"mapping/train_rand.txt": "1,1,2,2,3,3", "mapping/train_mapping.txt": mapping}
    )
    # Which video goes where is numpy's choice with seed 123: the first drawn of three is the test, then of two.
    state = np.random.RandomState(123)
    test = state.choice([0, 1, 2], 1, replace=False)[0]
    validation = state.choice(sorted({0, 1, 2} - {test}), 1, replace=False)[0]
    (train,) = {0, 1, 2} - {test, validation}
    return {
        split: {f"{i:06d}.png": (images[f"{i:06d}.png"], 1) for i in (2 * video, 2 * video + 1)}
        for split, video in (("train", train), ("validation", validation), ("test", test))
    }


def caltech101(folder):
    classes = {"accordion": 0, "yin_yang": 101}
    images = {(c, f"image_{i:04d}.jpg"): file_of(pixels(20, 30)) for c in classes for i in range(1, 33)}
    inner = tar({f"101_ObjectCategories/{c}/{name}": data for (c, name), data in images.items()}, "w:gz")
    zipped(folder / "caltech-101.zip", {"caltech-101/101_ObjectCategories.tar.gz": inner})
    expected = {"train": {}, "test": {}}
    state = np.random.RandomState(1234)  # 30 of each class, of the names in order
    for c, label in classes.items():
        names = [f"image_{i:04d}.jpg" for i in range(1, 33)]
        chosen = set(state.choice(names, 30, replace=False))
        for name in names:
            expected["train" if name in chosen else "test"][f"{label}/{name}"] = (images[c, name], label)
    return expected


def oxford_iiit_pet(folder):
    images = {name: file_of(pixels(40, 40)) for name in ("Abyssinian_100", "yorkshire_terrier_9", "beagle_117")}
    mended = pixels(40, 40)
    files = {f"images/{name}.jpg": data for name, data in images.items()}
    files["images/beagle_116.jpg"] = file_of(mended, quality=98)[:-2] + b"\0" * 240 + b"\xff\xd9"  # "Corrupt JPEG data"
    lists = {
        "trainval": "Abyssinian_100 1 1 1\nbeagle_116 5 2 1\n",
        "test": "yorkshire_terrier_9 37 2 25\nbeagle_117 5 2 1\n",
    }
    notes = {f"annotations/{name}.txt": text.encode() for name, text in lists.items()}
    notes |= {f"annotations/trimaps/{n}.png": file_of(pixels(40, 40, 1), "PNG") for n in [*images, "beagle_116"]}
    (folder / "images.tar.gz").write_bytes(tar(files, "w:gz"))
    (folder / "annotations.tar.gz").write_bytes(tar(notes, "w:gz"))
    return {
        "train": {"Abyssinian_100.jpg": (images["Abyssinian_100"], 0), "beagle_116.jpg": (mended, 4)},
        "test": {
            "yorkshire_terrier_9.jpg": (images["yorkshire_terrier_9"], 36),
            "beagle_117.jpg": (images["beagle_117"], 4),
        },
    }


def imagenet2012(folder):
    """A plain JPEG, one of the CMYK files and the one PNG of the training set; and two validation images."""
    plain, cmyk, png = (pixels(40, 40) for _ in range(3))
    ink = np.concatenate([255 - cmyk, np.zeros((40, 40, 1), np.uint8)], -1)  # no black: r = 255 - c
    file = io.BytesIO()
    PIL.Image.fromarray(ink, "CMYK").save(file, "JPEG", quality=98)
    inner = {
        "n01440764": {"n01440764_1.JPEG": file_of(plain)},
        "n01739381": {"n01739381_1309.JPEG": file.getvalue()},
        "n02105855": {"n02105855_2933.JPEG": file_of(png, "PNG")},
    }
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar({f"{k}.tar": tar(v) for k, v in inner.items()}))
    valid = {f"ILSVRC2012_val_0000000{i}.JPEG": file_of(pixels(40, 40)) for i in (1, 2)}
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar(valid))
    return {
        "train": {
            "n01440764_1.JPEG": (inner["n01440764"]["n01440764_1.JPEG"], 0),
            "n01739381_1309.JPEG": (cmyk, 59),
            "n02105855_2933.JPEG": (png, 230),
        },
        # The labels of the published validation images 1 and 2: n01751748 and n09193705.
        "validation": dict(zip(valid, zip(valid.values(), (65, 970), strict=True), strict=True)),
    }


def uc_merced(folder):
    images = {
        f"{c}0{i}.tif": (pixels(64, 64), k) for k, c in ((0, "agricultural"), (20, "tenniscourt")) for i in range(2)
    }
    files = {f"UCMerced_LandUse/Images/{n[:-6]}/{n}": file_of(image, "TIFF") for n, (image, _) in images.items()}
    zipped(folder / "UCMerced_LandUse.zip", files)
    return {"train": images}


# TFDS name: (what writes its files, the feature that is its key, the feature that is its label).
BUILDERS = {
    "caltech101": (caltech101, "", "label"),
    "cifar10": (cifar10, "id", "label"),
    "clevr": (clevr, "file_name", ""),
    "dsprites": (dsprites, "label_orientation", "label_orientation"),
    "dtd": (dtd, "file_name", "label"),
    "eurosat/rgb": (eurosat, "filename", "label"),
    "imagenet2012": (imagenet2012, "file_name", "label"),
    "kitti": (kitti, "image/file_name", ""),
    "oxford_flowers102": (oxford_flowers102, "file_name", "label"),
    "oxford_iiit_pet": (oxford_iiit_pet, "file_name", "label"),
    "patch_camelyon": (patch_camelyon, "id", "label"),
    "smallnorb": (smallnorb, "label_azimuth", "label_azimuth"),
    "svhn_cropped": (svhn_cropped, "id", "label"),
    "uc_merced": (uc_merced, "filename", "label"),
}
