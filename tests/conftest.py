"""How every test runs: on eight fake CPU devices, with JAX strict, shapes checked, and warnings as errors.

The devices are asked for in JAX's own settings and not through XLA_FLAGS, so that programs which tests start are not told
to have eight as well.
"""

import gc
import signal
from pathlib import Path

import jax
import optax
from flax.linen import normalization
from jaxtyping import install_import_hook

# Signatures are checked against what is passed: dtypes, ranks, and letters that must agree within a call. The hook works
# on modules that are imported after it, so nothing of ours is imported above.
install_import_hook(["vit_jax.models", "vit_jax.train"], "beartype.beartype")

COMPILED = Path(__file__).resolve().parents[1] / ".cache" / "xla"  # safe to remove

jax.config.update("jax_platforms", "cpu")
# Most of the time of these tests is compiling small programs that run once: without optimisation it is a fifth less. Programs
# that tests start (end-to-end runs, the golden ones among them) compile as users' do.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Lines of other libraries that strict promotion forbids; ours stay strict around them. Adam's bias correction raises a float
# to an int32 power, and a LayerNorm of bfloat16 asks for the common type of bfloat16 and float32.
lenient = jax.numpy_dtype_promotion("standard")
optax.tree.bias_correction = lenient(optax.tree.bias_correction)
normalization._compute_stats = lenient(normalization._compute_stats)
normalization._normalize = lenient(normalization._normalize)


# JAX leaves millions of long-lived objects, which each collection visits: a tenth of the suite's time by default.
gc.set_threshold(100_000, 50, 50)


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no process is left with a long one when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    heavy = {item.path for item in items if item.path.parent.name in ("e2e", "slurm")}
    items.sort(key=lambda item: (item.path not in heavy, item.path not in slow))


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # A program compiled in a test's own process serves every test, and every later run, that asks for the same one. A process
    # may read what another is still writing: JAX compiles then.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning")
    jax.config.update("jax_compilation_cache_dir", str(COMPILED))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As of `bash scripts/test.sh &` without job control. Programs that tests start would inherit that, and programs
        # respect it: they could not be stopped by Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
