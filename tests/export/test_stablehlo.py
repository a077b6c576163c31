"""StableHLO: one file for three kinds of device."""

import jax
import numpy as np
import pytest
from tiny_exports import images, outputs, tiny

from vit_jax import partition
from vit_jax.export import stablehlo
from vit_jax.export.program import make_program
from vit_jax.types import UserError


@pytest.mark.slow
def test_one_file_is_for_three_kinds_of_device_and_any_batch(tmp_path):
    program = make_program(tiny())
    (tmp_path / "model").write_bytes(stablehlo.serialize(program))
    stored = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    assert stored.platforms == ("cpu", "cuda", "tpu")
    assert [str(x) for x in stored.in_avals] == ["uint8[b,8,12,3]"]
    run = stablehlo.open_file(tmp_path / "model")
    for b in (1, 7):
        expected = outputs(program, images(b))["probabilities"]
        np.testing.assert_allclose(run(images(b))["probabilities"], expected, atol=1e-6)
    batch = jax.device_put(images(16), partition.batch_sharding(partition.make_mesh()))
    spread = jax.jit(run)(batch)["probabilities"]  # in a program on eight devices
    assert [shard.data.shape for shard in spread.addressable_shards] == [(2, 5)] * 8
    np.testing.assert_allclose(spread, outputs(program, images(16))["probabilities"], atol=1e-5)


def test_a_program_above_the_formats_limit_is_refused(monkeypatch):
    monkeypatch.setattr(stablehlo, "LIMIT", 1000)
    with pytest.raises(UserError, match=r"tiny_vit makes a program of 0\.0 GiB, .* export it as ONNX"):
        stablehlo.serialize(make_program(tiny()))
