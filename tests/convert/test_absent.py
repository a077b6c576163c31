"""A checkpoint that is not there: what was meant, and how to get it."""

import pytest

from vit_jax.convert.load import load
from vit_jax.types import UserError

EXPECTED = "expected an npz or safetensors file, a Hugging Face or timm folder, a vit_jax workdir, or a released model"


def said_of(path):
    with pytest.raises(UserError) as told:
        load(path)
    message = str(told.value)
    assert message.startswith(f"{path} is neither a file nor a folder; ")
    assert EXPECTED in message
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "facebook/deit-base.v2"])
def test_a_hugging_face_name_says_the_command_that_fetches_it(name):
    folder = name.split("/")[1]
    command = f"`pip install huggingface_hub` and `hf download {name} --local-dir {folder}` fetch it into a folder"
    assert f"if it is a Hugging Face name, {command}; then give {folder};" in said_of(name)


@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_224.augreg_in21k", "vit_small_patch14_reg4_dinov2", "timm/vit_tiny_patch16_384.augreg_in21k"],
)
def test_a_timm_name_says_the_command_that_fetches_it(name):
    plain = name.removeprefix("timm/")
    message = said_of(name)
    assert "if it is a timm name, `pip install huggingface_hub` and " in message
    assert f"`hf download timm/{plain} --local-dir {plain}` fetch it into a folder; then give {plain};" in message


def test_a_released_file_that_is_not_there_says_the_names_that_fetch_it(elsewhere):
    message = said_of("ViT-B_16.npz")
    released = (
        "released files of that name are fetched as imagenet21k:B/16 or imagenet21k+imagenet2012:B/16 or sam:B/16;"
    )
    assert released in message
    assert "hf download" not in message
    assert "nearby" not in message
    assert "bit-m:R50x1" in said_of(str(elsewhere / "BiT-M-R50x1.npz"))


def test_a_name_that_is_nearly_a_neighbours_names_it(elsewhere):
    (elsewhere / "ViT-B_16-224.npz").write_bytes(b"")
    (elsewhere / "weights").mkdir()
    (elsewhere / "weights" / "ViT-B_16.npz").write_bytes(b"")
    (elsewhere / "other.txt").write_bytes(b"")
    assert "nearby is ViT-B_16-224.npz and weights/ViT-B_16.npz;" in said_of("ViT-B_16.npz")
    assert f"nearby is {elsewhere / 'weights' / 'ViT-B_16.npz'};" in said_of(str(elsewhere / "weights" / "ViT-B16.npz"))


@pytest.mark.parametrize("path", ["runs/mine", "ckpt", "/nowhere/at/all", "weights/vit.npz", "a b/c d", ""])
def test_other_paths_are_no_names(elsewhere, path):
    (elsewhere / "runs").mkdir()
    if path:
        message = said_of(path)
        assert "hf download" not in message or path == "weights/vit"
        assert "released files" not in message
    else:
        with pytest.raises(UserError, match="expected"):
            load(path)


@pytest.mark.parametrize(
    "path", ["a\0b", "\x1b[2J", "x" * 5000, "~nobody-at-all/vit.npz", "http://127.0.0.1:9/vit.npz"]
)
def test_paths_that_cannot_be_are_told_once_and_in_print(path):
    with pytest.raises(UserError, match=r"is neither a file nor a folder|cannot be reached") as told:
        load(path)
    assert str(told.value).isprintable()
    assert str(told.value).count("\\x") <= 1
