"""What a config leaves open: each decision, its reason, and what nobody may decide."""

import dataclasses

import pytest

from vit_jax import config as configs
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.resolve import resolve
from vit_jax.run.schema import SCHEMA
from vit_jax.run.settle import Facts, begun_with, check_attention, settle
from vit_jax.types import UserError

# A tiny checkpoint that was trained with another GELU, patches of 4 and 3 classes.
SETTINGS = {
    "name": "vit",
    "num_classes": 3,
    "patch_size": (4, 4),
    "width": 8,
    "depth": 2,
    "mlp_dim": 12,
    "num_heads": 2,
}
CHECKPOINT = Checkpoint("small.npz", "npz", {}, {**SETTINGS, "gelu": "erf", "norm_eps": 1e-12}, (2, 2))


def config(spec="configs/pretrain.py:variant=B/16,dataset=imagenet21k", **overrides):
    return resolve(configs.load(spec), SCHEMA, [(key.replace("__", "."), value) for key, value in overrides.items()])


def decided(decisions):
    return {decision.key: decision.value for decision in decisions}


@pytest.mark.parametrize(("backend", "dtype", "scan"), [("cpu", "float32", True), ("gpu", "bfloat16", False)])
def test_the_device_decides_dtype_and_scan_where_the_config_does_not(backend, dtype, scan):
    settled, decisions = settle(config(), Facts(backend))
    assert (settled.model.dtype, settled.model.scan) == (dtype, scan)
    assert decided(decisions) == {"model.dtype": dtype, "model.scan": scan, "model.attention": "fused"}
    assert all(decision.why.startswith(f"suits the device, a {backend.upper()}") for decision in decisions)
    by_hand, decisions = settle(
        config(model__dtype="float32", model__scan="false", model__attention="xla"), Facts(backend)
    )
    assert (by_hand.model.dtype, by_hand.model.scan, decisions) == ("float32", False, [])


def test_the_data_decides_the_number_of_classes_where_the_config_does_not():
    open_config = config("configs/finetune.py:variant=B/16,dataset=cifar10")
    settled, decisions = settle(open_config, Facts("cpu", num_classes=10, data="cifar10"))
    assert settled.model.num_classes == 10
    assert ("model.num_classes", 10, "cifar10 has as many") in decisions
    assert settle(open_config, Facts("cpu"))[0].model.num_classes is None  # nothing tells
    chosen = config("configs/finetune.py:variant=B/16,dataset=cifar10", model__num_classes="12")
    assert settle(chosen, Facts("cpu", num_classes=10))[0].model.num_classes == 12


def test_evaluators_take_from_the_data_section_and_the_objective_what_they_leave_open():
    draft = configs.load("configs/quickstart.py:pretrain")
    draft.evals.card = {"name": "scorecard", "split": "test", "resolution": (24, 24)}
    draft.objective = {"name": "sigmoid"}
    open_config = resolve(draft, SCHEMA, [("data.data_dir", "here"), ("data.exif", "ignore")])
    assert open_config.evals.digits.dataset is None
    settled, _ = settle(open_config, Facts("cpu", 10))
    digits, card = settled.evals.digits, settled.evals.card
    assert (digits.dataset, digits.data_dir, digits.exif, digits.resolution) == ("digits", "here", "ignore", (16, 16))
    assert (card.resolution, card.likelihood) == ((24, 24), "sigmoid")


def test_settling_is_pure_and_what_is_settled_stays():
    open_config = config()
    before = open_config.to_dict()
    settled, _ = settle(open_config, Facts("cpu"))
    assert open_config.to_dict() == before
    again, decisions = settle(settled, Facts("gpu"))
    assert (again, decisions) == (settled, [])
    with pytest.raises(AttributeError):
        settled.model.dtype = "bfloat16"


def test_a_checkpoint_decides_the_whole_model_but_for_what_training_and_the_user_choose():
    spec = "configs/finetune.py:init=small.npz,dataset=cifar10"
    open_config = config(spec, model__dropout="0.3")
    settled, decisions = settle(
        open_config,
        Facts("cpu", num_classes=10, checkpoint=CHECKPOINT),
        frozenset({"model.dropout"}),
    )
    found = {key: settled.model[key] for key in SETTINGS}
    assert found == SETTINGS | {"num_classes": 10}  # a new head: the data's classes
    assert (settled.model.gelu, settled.model.norm_eps, settled.model.dropout) == ("erf", 1e-12, 0.3)
    assert ("model.gelu", "erf", "as small.npz was trained") in decisions
    assert settled.data.resolution == settled.evals.test.resolution == (384, 384)  # a multiple of 4


def test_a_checkpoint_beside_a_variant_must_be_of_its_sizes_and_still_decides_gelu():
    spec = "configs/finetune.py:variant=Ti/16,init=small.npz,dataset=cifar10"
    with pytest.raises(
        UserError, match=r"config.model is .*192.*and the model of small.npz is .*8.*leave `variant` out"
    ):
        settle(config(spec), Facts("cpu", checkpoint=CHECKPOINT))
    tiny = dataclasses.replace(CHECKPOINT, settings={"name": "vit", "gelu": "erf", "width": 192, "num_classes": 3})
    settled, _ = settle(config(spec), Facts("cpu", num_classes=10, checkpoint=tiny))
    assert (settled.model.gelu, settled.model.norm_eps, settled.model.depth) == ("erf", 1e-6, 12)


def test_a_resumed_run_keeps_the_model_that_it_began_with_and_needs_no_checkpoint():
    open_config = config("configs/finetune.py:init=small.npz,dataset=cifar10")
    begun, _ = settle(open_config, Facts("cpu", num_classes=10, checkpoint=CHECKPOINT))
    saved = configs.to_dict(begun)["model"]  # JSON: tuples are lists
    resumed, _ = settle(open_config, Facts("cpu", num_classes=10, resumed=saved))
    assert resumed.model == begun.model


# Attention and what a resumed run keeps


@pytest.mark.parametrize(
    ("facts", "options", "core"),
    [
        (Facts("gpu", capability=9.0), {}, "cudnn"),
        (Facts("gpu", capability=9.0), {"model__attention_dropout": "0.1"}, "fused"),
        (Facts("gpu", capability=7.0), {}, "fused"),
        (Facts("tpu"), {}, "fused"),  # 14 x 14 patches and the class token
        (Facts("tpu"), {"data__resolution": "384"}, "fused"),  # 24 x 24
        (Facts("tpu"), {"model__positions": "relative", "model__positions_at": "every_layer"}, "xla"),
    ],
)
def test_device_length_and_options_decide_the_core_of_attention(facts, options, core):
    settled, decisions = settle(config(**options), facts)
    assert settled.model.attention == core
    why = next(decision.why for decision in decisions if decision.key == "model.attention")
    assert why.startswith(f"suits the device, a {facts.backend.upper()}: ")
    check_attention(settled, facts)


def test_a_core_that_cannot_be_had_is_refused_with_what_the_run_would_take():
    by_hand, _ = settle(config(model__attention="splash"), Facts("cpu"))
    with pytest.raises(
        UserError, match=r"'splash', which this run cannot have: it needs a TPU; leave .* takes 'fused'"
    ):
        check_attention(by_hand, Facts("cpu"))


def test_a_resumed_run_keeps_what_its_kind_of_device_decided_and_what_nothing_decided():
    began = {"dtype": "float32", "scan": True, "attention": "xla", "width": 8}
    saved = {"model": began, "train": {"accumulation": 2}}
    reasons = {"model.dtype": "suits the device, a CPU", "model.scan": "suits the device, a CPU"}
    kept = {"dtype": "float32", "scan": True, "attention": "xla", "accumulation": 2}
    assert begun_with(saved, reasons, "cpu") == kept
    older = {"attention": "xla", "accumulation": 2}
    assert begun_with(saved, reasons, "gpu") == older  # older than the choice of a core
    assert begun_with(saved, {}, "cpu") == {"scan": True, **older}  # older than settled.json
    by_hand = {"model.attention": "suits the device, a CPU: any"}
    assert begun_with(saved, by_hand, "cpu") == older  # the others are compared with today's
    settled, decisions = settle(config(), Facts("cpu", steps=10**6, begun=kept))
    assert all(settled.model[key] == began[key] for key in ("dtype", "scan", "attention"))
    assert settled.train.accumulation == 2
    assert {decision.why for decision in decisions} == {"as the run in the workdir began"}


def test_a_core_that_the_present_device_cannot_have_is_not_kept():
    settled, _ = settle(config(), Facts("gpu", begun={"attention": "cudnn"}))
    assert settled.model.attention == "fused"


# S/16 at batch 8: 6 x 12 layers x 197 tokens x 384 x (4 x 384 + 2 x 1536 + 2 x 197) x 8 = 218 GFLOP, 2.2 s a step. A scanned step
# is 0.11 s slower, and 12 unrolled layers compile for 4.8 s longer: the two are level at 44 steps.
SMALL = "configs/pretrain.py:variant=S/16,dataset=imagenet2012"


@pytest.mark.parametrize(
    ("facts", "options", "scan", "why"),
    [
        (Facts("cpu", steps=40), {}, True, "a CPU: scanned layers compile 5 s faster, and 40 steps are few"),
        (Facts("cpu", steps=48), {}, False, "a CPU: over 48 steps, faster steps save more than the 5 s of compilation"),
        (Facts("cpu", steps=48), {"data__sizes": "160,224"}, True, "a CPU: scanned layers compile 10 s faster, and 48"),
        (Facts("cpu"), {}, True, "a CPU: scanned layers compile 5 s faster"),  # of unknown length
        (Facts("tpu", steps=40), {}, False, "a TPU: unrolled steps are faster"),
        (Facts("gpu", steps=40), {"model__depth": "33"}, True, "a GPU: 33 unrolled layers would compile for minutes"),
        (Facts("tpu"), {"model__remat": "block"}, True, "with model.remat=block, memory counts more than speed"),
        (Facts("tpu"), {"model__remat": "dots"}, False, "a TPU: unrolled steps are faster"),
    ],
)
def test_device_and_length_decide_whether_layers_are_scanned(facts, options, scan, why):
    settled, decisions = settle(config(SMALL, data__batch_size="8", **options), facts)
    assert settled.model.scan is scan
    assert why in next(decision.why for decision in decisions if decision.key == "model.scan")


@pytest.mark.parametrize(("older", "name"), [("False", "none"), ("true", "block"), ("dots", "dots")])
def test_remat_is_a_name_and_its_older_spellings_stay(older, name):
    assert config(model__remat=older).model.remat == name
    draft = configs.load(SMALL)
    draft.model.remat = {"False": False, "true": True}.get(older, older)  # as config.json has it
    assert resolve(draft, SCHEMA).model.remat == name
    with pytest.raises(UserError, match="expected one of 'none', 'block', 'dots', 'offload'"):
        config(model__remat="some")
