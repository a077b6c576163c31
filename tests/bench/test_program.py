"""What the text of a compiled program says: cycles and bytes by part of the model, and collectives."""

import pytest

from vit_jax.bench.program import Collective, Program, part_of

# Shortened from programs of libtpu 0.0.42: a loop of 32 layers, a called computation, and collectives in three forms.
PROGRAM = """HloModule jit_train_step, is_scheduled=true

%cond (wide.param.1: (s32[], bf16[32,257,1280])) -> pred[] {
  %constant.420 = s32[]{:T(256)} constant(32)
  ROOT %lt.19 = pred[]{:T(1024)} compare(%get-tuple-element.1822, %constant.420), direction=LT
}

%gather (param.7: bf16[320,5120]) -> bf16[1280,5120] {
  %param.7 = bf16[320,5120]{1,0} parameter(0)
  ROOT %all-gather.3 = bf16[1280,5120]{1,0} all-gather(%param.7), channel_id=3, dimensions={0}
}

%all-reduce-scatter.1 (param.8: bf16[1280,5120]) -> bf16[1280,1280] {
  %all-reduce.6 = bf16[1280,5120]{1,0} all-reduce(%param.8), channel_id=6, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[1280,1280]{1,0} dynamic-slice(%all-reduce.6, %id), dynamic_slice_sizes={1280,1280}
}

%body (wide.param.2: (s32[], bf16[32,257,1280])) -> (s32[], bf16[32,257,1280]) {
  %fusion.1 = bf16[32,257,1280] fusion(%p), metadata={op_name="MlpBlock_3/dot"}, backend_config={"estimated_cycles":"1000"}
  %c.2 = bf16[32,257,1280] copy(%fusion.1), metadata={op_name="while/body/jit(dynamic)"}, backend_config={"estimated_cycles":"10"}
  %async.5 = ((bf16[320,5120]), bf16[1280,5120]) async-start(%p), calls=%gather
  %all-gather-start.4 = (bf16[64,1280], bf16[256,1280]) all-gather-start(%p), channel_id=4
  %fusion.6 = bf16[1280,1280]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %all-reduce.1 = (f32[1280,1280]{1,0}, f32[1280]{0}) all-reduce(%a, %b), channel_id=1
}

%called (p: f32[8]) -> f32[8] {
  ROOT %fusion.7 = f32[8] fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"5"}
}

ENTRY %main.1_spmd (param.1: s32[]) -> (s32[]) {
  %param.1 = f32[1024]{0} parameter(0)
  %fusion.3 = f32[8] fusion(%param.1), metadata={op_name="jit(train_step)/add"}, backend_config={"estimated_cycles":"7"}
  %while.57 = (s32[], bf16[32,257,1280]) while(%tuple), condition=%cond, body=%body, metadata={op_name="while"}
  %all-reduce.9 = f32[]{:T(128)} all-reduce(%fusion.3), channel_id=9
  %call.1 = f32[8] call(%fusion.3), to_apply=%called
}
"""


def test_cycles_are_summed_by_part_and_a_loop_counts_as_often_as_it_runs():
    assert Program(PROGRAM).cycles() == {
        "MLP": 32 * 1000,
        "copies of the loop over layers": 32 * 10,
        "optimizer": 7,
        "other": 5,
    }


def test_collectives_have_bytes_runs_and_whether_the_device_computes_meanwhile():
    gathered = 2 * (1280 * 5120 + 256 * 1280)  # of the started gather the result alone, without its operand
    assert Program(PROGRAM).collectives() == [
        Collective("all-gather", "bf16", 64, 32 * gathered, hidden=True),
        Collective("reduce-scatter", "bf16", 32, 32 * 2 * 1280 * 5120, hidden=False),
        Collective("all-reduce", "f32", 32, 32 * 4 * (1280 * 1280 + 1280), hidden=False),  # and no scalars
    ]


def test_a_gpus_collective_hides_only_if_something_lies_between_its_start_and_its_end():
    """Shortened from XLA's program for two H100s."""
    text = """
ENTRY %main.2_spmd (param.1: bf16[512,1024]) -> bf16[1024,1024] {
  %all-gather-start = (bf16[512,1024]{1,0}, bf16[1024,1024]{1,0}) all-gather-start(%param.1), channel_id=1, C
  ROOT %all-gather-done = bf16[1024,1024]{1,0} all-gather-done(%all-gather-start)
}
"""
    for sync, hidden in (("true", False), ("false", True)):
        program = Program(
            text.replace(" C\n", f' backend_config={{"collective_backend_config":{{"is_sync":{sync}}}}}\n')
        )
        assert program.collectives() == [Collective("all-gather", "bf16", 1, 2 * 1024 * 1024, hidden)]


def test_traffic_is_operands_and_results_of_kernels():
    tokens = 2 * 32 * 257 * 1280
    traffic = Program(PROGRAM).traffic()
    assert traffic["MLP"] == 32 * tokens  # the operand is not in the shortened text
    assert traffic["copies of the loop over layers"] == 32 * 2 * tokens
    assert traffic["optimizer"] == 4 * (1024 + 8)
    # Three in the loop's body, its three collectives; outside two fusions and one collective.
    assert Program(PROGRAM).kernels() == 32 * 6 + 3


LAYERS = "jit(train_step)/transpose(jvp(VisionTransformer))/Transformer/Transformer.scan_blocks/while/body"
BLOCK = f"{LAYERS}/closed_call/encoderblock"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (f"{BLOCK}/MultiHeadDotProductAttention_1/key/dot_general", "attention"),
        (f"{BLOCK}/MlpBlock_3/Dense_1/dot_general", "MLP"),
        (f"{BLOCK}/LayerNorm_0/reduce_sum", "norms"),
        ("jit(train_step)/jvp(VisionTransformer)/Transformer/encoder_norm/mul", "norms"),
        ("jit(train_step)/jvp(VisionTransformer)/Transformer/encoderblock_7/add", "residuals and dropout"),
        ("jit(train_step)/jvp(VisionTransformer)/embedding/dot_general", "embedding, head and loss"),
        ("jit(train_step)/transpose(jvp(VisionTransformer))/head/dot_general", "embedding, head and loss"),
        ("jit(train_step)/jvp(jit(log_sigmoid))/jit(softplus)/select_n", "embedding, head and loss"),
        ("jit(train_step)/jvp(VisionTransformer)/concatenate", "other layers"),
        (f"{LAYERS}/jit(dynamic_index_in_dim)/squeeze", "copies of the loop over layers"),
        ("jit(train_step)/add", "optimizer"),
        ("broadcast.3", "other"),
        ("", "other"),
    ],
)
def test_the_part_of_an_operation_follows_from_its_path(name, part):
    assert part_of(name) == part
