"""What all processes of a run must share: other sources, configs or examples are named, and another data folder is not."""

import hashlib
import shutil
from pathlib import Path

import pytest
from etils import epath

import vit_jax
from vit_jax.run.agreement import facts, hash_of_sources

PACKAGE = Path(vit_jax.__file__).parent


def test_the_hash_of_the_sources_is_of_every_file_of_the_package():
    # By hand: each path below vit_jax/, a zero byte, the content, a zero byte, in the order of the paths.
    sources = {str(file.relative_to(PACKAGE)): file.read_bytes() for file in PACKAGE.rglob("*.py")}
    assert {"models/vit.py", "train/step.py", "run/agreement.py", "peers.py"} <= sources.keys()
    ordered = sorted(sources, key=lambda name: name.split("/"))
    text = b"".join(name.encode() + b"\0" + sources[name] + b"\0" for name in ordered)
    assert hash_of_sources() == hashlib.sha256(text).hexdigest()[:12]


def facts_of(made, tmp_path, **overrides):
    return facts(made(**overrides), epath.Path(tmp_path / "run"))


def differing(a, b):
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


@pytest.mark.slow
def test_where_a_machine_keeps_its_data_and_how_it_reads_it_is_not_compared(digits, made, tmp_path):
    here = facts_of(made, tmp_path)
    shutil.copytree(digits, tmp_path / "there")
    own = {"data__data_dir": str(tmp_path / "there"), "data__threads": "3", "data__prefetch": "5", "data__workers": "2"}
    assert differing(here, facts_of(made, tmp_path, **own)) == []


@pytest.mark.slow
def test_a_different_key_split_or_workdir_is_named(made, tmp_path):
    here = facts_of(made, tmp_path)
    assert differing(here, facts_of(made, tmp_path, optim__lr="0.5")) == ["config.optim.lr"]
    fewer = differing(here, facts_of(made, tmp_path, data__split="train[:360]"))
    assert fewer == [
        "config.data.split",
        "data (hash of labels, names and some examples)",
        "splits (name, split, examples, classes)",
    ]
    elsewhere = differing(here, facts_of(made, tmp_path / "other"))
    assert elsewhere == ["workdir"]


def test_a_checkpoint_or_a_result_that_only_one_process_sees_is_named(made, tmp_path):
    before = facts_of(made, tmp_path)
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    after = facts_of(made, tmp_path)
    assert differing(before, after) == ["a finished run in it", "checkpoints in it"]
    assert (before["checkpoints in it"], after["checkpoints in it"]) == ([], [5])
