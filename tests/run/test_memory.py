"""The model of a step's memory, by hand, and the keys that it decides, each with its reason."""

import pytest

from vit_jax import config as configs
from vit_jax.resolve import resolve
from vit_jax.run.assemble import kept_bytes
from vit_jax.run.memory import Choice, Demand, estimate, settle_memory
from vit_jax.run.schema import SCHEMA
from vit_jax.run.settle import Facts, settle

B16 = "configs/pretrain.py:variant=B/16,dataset=imagenet21k"
# 12 layers that keep 10 MB of an image each, unrolled or scanned, and 1 MB if they are computed again.
KEPT = {"none": 120_000_000, "block": 12_000_000, "dots": 100_000_000}
DEMAND = Demand(state=12 * 10**8, params=4 * 10**8, kept=lambda scan, remat: KEPT[remat], layers=12, classes=1000)


def decide(memory, demand=DEMAND, backend="tpu", devices=4, begun=None, spec=B16, **options):
    """The config's keys and the reasons, on devices with some GB of memory; the batch is 64 images a device."""
    facts = Facts(backend, devices=devices, splits=[1, 2, 4], memory=memory and int(memory * 1e9), begun=begun or {})
    pairs = {"data.batch_size": str(64 * devices)} | {key.replace("__", "."): x for key, x in options.items()}
    open_config, _ = settle(resolve(configs.load(spec), SCHEMA, list(pairs.items())), facts)
    settled, decisions = settle_memory(open_config, facts, demand)
    chosen = settled.train.fsdp, settled.model.get("scan"), settled.model.get("remat"), settled.train.accumulation
    return chosen, {decision.key: decision.why for decision in decisions}


def test_memory_by_hand():
    # A scanned layer's tiles: a quarter more. Kernels in 16 bits: half of the parameters. Working: 1.25 x 10 MB, 12 KB of logits.
    found = estimate(DEMAND, Choice(fsdp=1, scan=True, remat="block"), 64)
    assert found == pytest.approx((12e8, 4e8, 1.25 * 64 * 12e6, 64 * (12.5e6 + 12_000) + 2e8))
    assert found.total == pytest.approx(sum(found))
    # Half of the state; a layer's whole parameters and gradients; gradients of a micro-batch beside their sum.
    found = estimate(DEMAND, Choice(fsdp=2, scan=False, remat="none", accumulation=4), 64)
    assert found == pytest.approx((6e8, 4e8, 0.9 * 16 * 120e6, 16 * (12.5e6 + 12_000) + 2 * 4e8 / 12))
    # A GPU's compiler computes nothing again.
    found = estimate(DEMAND._replace(backend="gpu"), Choice(), 64)
    assert found.activations == pytest.approx(1.25 * 64 * 120e6)


@pytest.mark.parametrize(
    ("memory", "options", "chosen"),
    [
        (20, {}, (1, False, "none", 1)),  # 1.6 + 0.9 x 64 x 0.12 + 0.8 = 9.3 GB: under 60% of 20
        (14, {}, (1, True, "block", 1)),  # 1.6 + 1.25 x 64 x 0.012 + 1.0 = 3.6 GB
    ],
)
def test_the_fastest_choice_that_leaves_room_is_taken(memory, options, chosen):
    assert decide(memory, **options)[0] == chosen


@pytest.mark.parametrize(
    "spec",
    [
        "configs/detection.py:variant=B/16,dataset=coco",
        "configs/masked.py:objective=mae,variant=B/16,dataset=imagenet2012",
    ],
)
def test_memory_decides_for_detectors_and_masked_models_too(spec):
    assert decide(20, spec=spec)[0] == (1, False, "none", 1)
    assert decide(14, spec=spec)[0] == (1, True, "block", 1)


def test_reasons_name_the_memory_and_what_the_fastest_choice_would_take():
    _, why = decide(20)
    assert why["model.scan"] == "suits the device, a TPU: a step takes about 9.3 of 20.0 GB"
    assert set(why) == {"train.fsdp", "model.scan"}  # no word about what stays as it is
    _, why = decide(14, backend="gpu")
    assert why["model.scan"] == why["model.remat"]
    assert why["model.remat"].endswith("a GPU: a step takes about 3.6 of 14.0 GB; the fastest would take 9.3 GB")


def test_micro_batches_come_last_and_only_where_nothing_else_suffices():
    (fsdp, scan, remat, accumulation), why = decide(5)
    # Of 3.0 GB: split in two, block with 64 images takes 0.6 + 0.2 + 0.96 + 0.8 + 0.1 + 0.07 = 2.7 GB.
    assert (fsdp, scan, remat, accumulation) == (2, True, "block", 1)
    (fsdp, scan, remat, accumulation), why = decide(3.6)
    # Of 2.2 GB: 2.7 is too much; in two halves all kept is 0.6 + 0.4 + 0.9 x 32 x 0.12 = 4.5, block 0.6 + 0.4 + 1.1 = 2.05.
    assert (fsdp, scan, remat, accumulation) == (2, True, "block", 2)
    assert why["train.accumulation"].endswith("a step takes about 2.0 of 3.6 GB; the fastest would take 8.6 GB")


def test_if_nothing_suffices_nearly_the_least_is_taken():
    (fsdp, _, remat, accumulation), _ = decide(0.5)
    assert (fsdp, remat) == (4, "block")
    assert accumulation < 64  # the last halvings save less than a tenth


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"train__fsdp": "4", "model__scan": "true"}, (4, True, "block", 1)),
        ({"model__scan": "false"}, (1, False, "block", 1)),
        ({"model__remat": "dots"}, (1, False, "dots", 1)),
        ({"model__remat": "block", "model__scan": "auto"}, (1, True, "block", 1)),
        ({"model__remat": "none"}, (1, False, "none", 2)),  # 1.6 + 0.4 + 0.9 x 32 x 0.12 + 0.4 = 5.9 GB
        ({"train__accumulation": "2"}, (1, False, "none", 2)),
        ({"model__depth": "33"}, (1, True, "block", 1)),
    ],
)
def test_what_is_set_by_hand_stays_and_the_rest_follows_from_it(options, chosen):
    assert decide(14, **options)[0] == chosen


def test_deep_models_are_scanned_even_with_room_and_scanned_layers_are_computed_again():
    assert decide(40, model__depth="33")[0] == (1, True, "block", 1)
    assert decide(40, model__scan="true")[0] == (1, True, "block", 1)
    assert decide(40, model__depth="33", model__remat="none")[0] == (1, True, "none", 1)


def test_a_resumed_run_keeps_its_layout_and_its_micro_batches():
    chosen, why = decide(14, begun={"scan": False, "accumulation": 2})
    assert chosen == (1, False, "none", 2)
    assert why["model.scan"] == "as the run in the workdir began"
    assert "train.accumulation" not in why


@pytest.mark.parametrize(("memory", "backend"), [(None, "tpu"), (None, "cpu"), (14, "cpu")])
def test_unknown_memory_and_a_cpu_decide_what_they_always_did(memory, backend):
    (fsdp, scan, remat, accumulation), why = decide(memory, backend=backend)
    assert (fsdp, scan, remat, accumulation) == (1, backend == "cpu", "none", 1)
    assert set(why) == ({"train.fsdp"} if memory else set())


@pytest.mark.parametrize(
    ("memory", "state", "fsdp"),
    [
        (16, 3.9e9, 1),  # a quarter of the memory holds it
        (16, 4.1e9, 2),
        (16, 10e9, 4),  # H/14 on a TPU v3: 10 / 2 = 5, 10 / 4 = 2.5
        (16, 1000e9, 4),  # nothing suffices
    ],
)
def test_the_smallest_split_whose_shards_fit_is_chosen(memory, state, fsdp):
    demand = DEMAND._replace(state=int(state * 0.75), params=int(state * 0.25))
    chosen, why = decide(memory, demand)
    assert chosen[0] == fsdp
    assert why["train.fsdp"] == f"state and gradients take {state / 1e9:.1f} GB, and a device has 16.0 GB"


def test_a_model_without_layers_to_scan_is_cut_into_micro_batches():
    spec = "configs/pretrain.py:variant=R50x1,dataset=jft"
    assert decide(14, spec=spec)[0] == (1, None, None, 2)


def test_the_bytes_that_a_forward_pass_keeps_by_hand():
    options = [
        ("model.dtype", "bfloat16"),
        ("model.attention", "fused"),
        ("model.depth", "2"),
        ("data.batch_size", "8"),
    ]
    small = resolve(configs.load("configs/pretrain.py:variant=Ti/16,dataset=imagenet21k"), SCHEMA, options)
    small, _ = settle(small, Facts("cpu", 10))
    # Per layer: 2 norms' inputs and outputs, q, k, v, their mix, (n, n) weights of 3 heads, the MLP's hidden units; 2 bytes
    # each. Of each norm two float32 numbers a token.
    tokens, d = 197, 192
    layer = 2 * tokens * (8 * d + 3 * tokens + 4 * d) + 4 * 4 * tokens
    # Beside the layers: patches, the last norm's input and statistics, the head's vectors.
    rest = 2 * 3 * 224 * 224 + 2 * tokens * d + 2 * 4 * tokens
    found = kept_bytes(small, scan=True, remat="none")
    assert found == pytest.approx(2 * layer + rest, rel=0.002)
    assert kept_bytes(small, scan=True, remat="block") == pytest.approx(2 * 2 * tokens * d + rest, rel=0.01)


def test_an_encoder_keeps_the_patches_that_its_objective_lets_it_see():
    def kept(depth):
        options = {"model.dtype": "bfloat16", "model.attention": "fused", "model.depth": depth, "data.batch_size": "8"}
        options |= {"model.decoder_depth": "1"}
        spec = configs.load("configs/masked.py:objective=mae,variant=Ti/16,dataset=imagenet2012")
        small, _ = settle(resolve(spec, SCHEMA, list(options.items())), Facts("cpu", 10))
        return kept_bytes(small, scan=True, remat="none")

    tokens = 1 + 49  # the class token, and a quarter of 196 patches
    layer = 2 * tokens * (8 * 192 + 3 * tokens + 4 * 192) + 4 * 4 * tokens  # see above
    assert kept("3") - kept("2") == pytest.approx(layer, rel=0.002)
