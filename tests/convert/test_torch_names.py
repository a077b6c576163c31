"""Names and layouts of transformers and of timm, there and back."""

from checkpoints import (
    copy_golden,
    flat,
    golden_tensors,
    same_bits,
)

from vit_jax.convert.load import load

BLOCKS = "Transformer/encoderblock"


def details(loaded):
    return {fate.name: fate.detail for fate in loaded.report}


# transformers 5 in memory and the hub's files, written side by side.
VERSION_5 = (
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def version_5(name):
    for old, new in VERSION_5:
        name = name.replace(old, new)
    return name


def test_the_names_of_transformers_5_are_read_and_reported(tmp_path):
    tensors = {version_5(name): x for name, x in golden_tensors("hf_classifier").items()}
    assert "vit.layers.1.mlp.fc2.bias" in tensors
    loaded = load(copy_golden("hf_classifier", tmp_path / "hf", tensors=tensors))
    same_bits(flat(loaded), flat(load(copy_golden("hf_classifier", tmp_path / "hub"))))
    assert details(loaded)[f"{BLOCKS}_0/MlpBlock_3/Dense_1/kernel"] == "40x24, from vit.layers.0.mlp.fc2.weight"
