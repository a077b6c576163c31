"""Listing images: which files count, in which order they are read, and which are missing."""

from etils import epath

from vit_jax.data.formats.listing import (
    count_images,
    find_missing,
    holds_images,
    list_folders,
    list_images,
    sort_by_hash,
)


def test_images_are_found_at_any_depth_and_other_files_are_counted_by_suffix(tmp_path):
    for name in ("b.JPG", "deep/er/a.png", "notes.txt", "deep/LICENSE", "deep/x.TXT"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = epath.Path(tmp_path)
    assert list_images(folder) == (["b.JPG", "deep/er/a.png"], {".txt": 2, "without suffix": 1})
    assert (list_folders(folder), count_images(folder)) == (["deep"], 1)
    assert (holds_images(folder), holds_images(folder / "deep"), count_images(folder / "deep")) == (True, True, 0)


def test_files_are_ordered_by_the_md5_of_their_path():
    # printf a | md5sum: 0cc1..., b: 92eb..., c: 4a8a..., d: 8277...
    assert sort_by_hash([("b", 1), ("a", 0), ("d", 3), ("c", 2)]) == [("a", 0), ("c", 2), ("d", 3), ("b", 1)]


def test_missing_files_are_named_in_the_order_given(tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.png").touch()
    wanted = ["nowhere/1.png", *(f"{i}.png" for i in range(22)), str(tmp_path / "3.png"), str(tmp_path / "33.png")]
    expected = ["nowhere/1.png", "20.png", "21.png", str(tmp_path / "33.png")]
    assert find_missing(str(tmp_path), wanted) == expected
