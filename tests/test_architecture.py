"""The map of the house: who may import whom, how long a file may be, and what a start must not cost."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vit_jax"
ROOMS = {"metrics", "models", "partition", "data", "convert", "train", "evals"}
FLOOR = {"types", "targets", "files", "config", "memory", "process", "locks", "peers", "remote"}

# What a room may import of vit_jax besides itself. One direction: whoever is further down may use what is above.
MAY_IMPORT = {
    "targets": set(),
    "types": {"targets"},
    "files": {"types"},
    "values": {"types"},
    "config": {"types", "files", "values"},
    "resolve": {"types", "config", "values"},
    "memory": set(),
    "process": {"types", "memory"},
    "locks": {"types", "process"},
    "remote": {"types"},
    "console": {"types"},
    "flops": set(),
    "partition": {"types"},
    "cluster": {"types"},
    "peers": {"types", "process", "cluster"},
    "metrics": {"types", "files", "console"},
    "models": {"types", "partition"},  # activations and gathered parameters on a mesh
    "data": {"types", "targets", "files"},
    # Hands out modules with their parameters, and reads our own runs' like any other format.
    "convert": {"types", "files", "remote", "models", "train.checkpoint", "train.folders"},
    "train": {"types", "files", "process", "metrics", "partition", "peers"},
    "evals": {"types", "targets", "files", "metrics", "partition", "data", "train.objectives"},
    "cards": {
        "types",
        "files",
        "metrics",
        "models",
        "convert",
        "flops",
    },  # model cards, and the table of released models
    # The composition root: it knows every room.
    "run": {*FLOOR, "cards", "console", "flops", "resolve", "values", *ROOMS},
    "predict": {"types", "files", "models", "data", "convert"},  # from image files to classes
    "detect": {"types", "files", "models", "data", "convert"},  # from image files to objects
    # A checkpoint as a file that runs without us.
    "export": {"types", "models", "data", "convert", "predict", "detect", "cards"},
    # A checkpoint's features of whole data sets.
    "features": {"types", "targets", "files", "partition", "models", "data", "convert", "evals", "predict", "detect"},
    # A page in the browser on which checkpoints are tried.
    "demo": {"types", "files", "models", "data", "convert", "predict", "detect", "insight", "report.maps"},
    "evaluate": {"types", *ROOMS},  # a checkpoint's scores
    "bench": {*FLOOR, "flops", "resolve", "run", *ROOMS},  # what a step, a pipeline or a model costs
    "insight": {"types", "targets", "models", "data", "convert", "detect"},  # what a model has learned
    # Many runs, each a process of its own.
    "sweeps": {*FLOOR, "flops", "resolve", "run", *ROOMS},
    # Their page, drawn from files alone; objects as `detect` draws them.
    "report": {"types", "files", "metrics", "evals.coco", "train.clock", "run.record", "sweeps.results", "detect"},
    # The command line may import anything; nothing imports it but the programs' entries.
    "main": {"process", "cli"},
    "__main__": {"cli"},
    "cli": {
        *FLOOR,
        *(
            "vit_jax",
            "resolve",
            "run",
            "predict",
            "detect",
            "evaluate",
            "export",
            "features",
            "demo",
            "bench",
            "insight",
            "sweeps",
            "report",
            "cards",
        ),
        *ROOMS,
    },
}
# Configs read two tables: of variants and of VTAB's tasks.
CONFIGS_MAY_IMPORT = {
    "ml_collections",
    "vit_jax.config",
    "vit_jax.files",
    "vit_jax.types",
    "vit_jax.models.variants",
    "vit_jax.data.vtab.tasks",
}
# Inside two rooms there is a direction too: what a sub-room, or a file beside them, may import of the others.
INSIDE = {
    "data": {
        "image": set(),
        "splits": set(),
        "source": {"image"},
        "likeness": {"source"},
        "stream": {"image", "source"},
        "formats": {"image", "source", "splits"},
        "vtab": {"image", "source", "splits", "formats"},
        "prepare": {"image", "source", "splits", "formats", "vtab"},
        "open": {"image", "source", "splits", "formats", "vtab", "prepare"},
        "dedup": {"image", "source", "splits", "formats", "open"},
        "build": {"image", "source", "splits", "stream", "open", "dedup"},
    },
    "run": {
        "schema": {"initial"},  # which function reads which section
        "record": set(),  # what a run leaves in its folder
        "checks": set(),  # what a config and its data must agree on
        "initial": set(),  # where parameters start: the `init` section
        "settle": {"schema", "initial"},
        "memory": {"settle"},  # what memory decides
        "assemble": set(),
        "keys": {"schema"},  # a config's keys, in words
        "job": {"schema", "settle", "checks", "memory", "record", "initial", "assemble"},
        "plan": {"settle", "job"},  # what a run will do, in words
        "extend": {"record", "job"},  # a run made longer
        "agreement": {"record", "job"},
        "hooks": {"record", "assemble", "job"},  # what a run does beside training
        "ready": {"initial", "job"},  # from a checked run to its first step
        "lease": set(),  # one process per URL
        "mirror": {"lease"},  # a workdir at a URL
        "execute": {"settle", "record", "job", "plan", "extend", "agreement", "hooks", "ready", "mirror"},
    },
}
# Modules with logic whose tests lie elsewhere, and where.
TESTED_ELSEWHERE = {
    "data/prepare/pack_beam.py": "tests/beam, which needs an environment of its own",
}
HOMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "base_utils"}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def room_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def parse(path):
    return ast.parse(path.read_text(), str(path))


def imports(path):
    """Full names of what a file imports, wherever in it; `from vit_jax import peers` is `vit_jax.peers`."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = [f"{node.module}.{name.name}" for name in node.names]
            # A name imported from a package is a module of it or a value in it.
            found |= {full if _is_module(full) else node.module for full in inside}
    return found


def _is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def within(name, allowed):
    return any(name == a or name.startswith(f"{a}.") for a in allowed)


def test_the_walk_finds_the_house():
    found = {room_of(path) for path in modules()}
    assert found - {"__init__"} == set(MAY_IMPORT)
    assert "vit_jax.models.positions" in imports(PACKAGE / "convert" / "adapt.py")
    assert {"vit_jax.peers", "vit_jax.run.record"} <= imports(PACKAGE / "run" / "execute.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(path):
    room = room_of(path)
    if room == "__init__":  # names what notebooks call, for editors; see the test of what it imports
        assert {name for name in imports(path) if name.startswith("vit_jax")} <= {
            "vit_jax.convert.load",
            "vit_jax.predict",
        }
        return
    ours = {name.removeprefix("vit_jax.") for name in imports(path) if name.split(".")[0] == "vit_jax"}
    wrong = {name for name in ours if not within(name, MAY_IMPORT[room] | {room})}
    assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_needs_tensorflow_or_torch(path):
    if path == PACKAGE / "bench" / "peer_pipelines.py":  # runs in an environment of its own
        return
    assert not {name for name in imports(path) if within(name, {"tensorflow", "torch", "tf_keras", "flaxformer"})}


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=lambda path: path.name)
def test_the_data_room_imports_no_jax(path):
    # Its worker processes would each start a backend.
    assert not {name for name in imports(path) if within(name, {"jax", "flax", "optax", "orbax"})}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.name)
def test_configs_import_only_what_loads_in_an_instant(path):
    wrong = {n for n in imports(path) if n.split(".")[0] not in sys.stdlib_module_names and n not in CONFIGS_MAY_IMPORT}
    assert not wrong


@pytest.mark.parametrize(
    "path", [p for house in INSIDE for p in sorted((PACKAGE / house).rglob("*.py"))], ids=lambda path: path.name
)
def test_sub_rooms_import_in_one_direction(path):
    house, first = path.relative_to(PACKAGE).parts[:2]
    room = first.removesuffix(".py")
    if room == "__init__":
        return
    prefix = f"vit_jax.{house}."
    ours = {name.removeprefix(prefix) for name in imports(path) if name.startswith(prefix)}
    wrong = {name for name in ours if name.split(".")[0] not in INSIDE[house][room] | {room}}
    assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


@pytest.mark.parametrize("level", ["modules", "rooms"])
def test_nothing_imports_in_a_circle(level):
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {}
    for name, path in names.items():
        found = imports(path) & set(names)
        if level == "rooms":
            name, found = room_of(path), {room_of(names[other]) for other in found}
        graph[name] = graph.get(name, set()) | found - {name}
    graph.pop("__init__", None)  # names what notebooks call
    assert len(graph) > 20
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_only_checkpoint_knows_orbax_and_only_peers_joins_processes():
    orbax = {path.name for path in modules() if within("orbax", {n.split(".")[0] for n in imports(path)})}
    assert orbax == {"checkpoint.py"}
    assert {p.name for p in modules() if "jax.distributed" in p.read_text()} == {"peers.py"}
    assert not [p.name for p in modules() if "pmap(" in p.read_text()]


def test_no_file_is_a_drawer_for_everything():
    everything = [*modules(), *(ROOT / "configs").glob("*.py"), *(ROOT / "scripts").glob("*")]
    assert not [path for path in everything if path.stem in HOMELESS]
    assert not [path for path in PACKAGE.rglob("*") if path.is_dir() and path.name in HOMELESS]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_has_at_most_300_lines_and_opens_with_a_paragraph(path):
    assert len(path.read_text().splitlines()) <= 300
    assert "Called by:" not in ast.get_docstring(parse(path))  # such lists rot, and a search knows better


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_function_has_at_most_60_lines_its_docstring_aside(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node):
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_every_module_with_logic_has_a_test_file_of_its_name():
    """A module of classes without methods, such as a record, has no logic."""
    missing = set()
    for path in modules():
        place = path.relative_to(PACKAGE)
        has_logic = any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(parse(path)))
        test = ROOT / "tests" / place.parent / f"test_{place.name}"
        if has_logic and not place.name.startswith("__") and not test.exists():
            missing.add(place.as_posix())
    assert missing == set(TESTED_ELSEWHERE)


START = """
import sys, time
began = time.perf_counter()
import vit_jax.main
from vit_jax import config
for spec in ("pretrain.py:variant=H/14,dataset=jft", "finetune.py", "quickstart.py:finetune"):
    config.load("configs/" + spec)
heavy = {"jax", "jaxlib", "flax", "optax", "tensorflow", "tensorflow_datasets", "grain", "cv2", "matplotlib", "orbax"}
print(f"{time.perf_counter() - began:.2f} s")
print("loaded:", sorted(heavy & set(sys.modules)))
"""


def test_starting_and_loading_a_config_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", START], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seconds, loaded = done.stdout.splitlines()
    print(f"import of vit_jax.main and three configs: {seconds}")
    assert loaded == "loaded: []"


NAMES = """
import sys
import vit_jax
print(sorted(name for name in sys.modules if name.startswith("vit_jax") or name in ("jax", "numpy", "flax")))
assert {"load_model", "read_images", "classify", "__version__"} <= set(dir(vit_jax))
from vit_jax import load_model, read_images, classify
from vit_jax.convert import load_model as same
assert load_model is same is vit_jax.load_model
try:
    vit_jax.nothing
except AttributeError as error:
    print(error)
"""


def test_the_package_alone_imports_nothing_and_still_has_what_notebooks_call():
    done = subprocess.run([sys.executable, "-c", NAMES], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['vit_jax']", "module 'vit_jax' has no attribute 'nothing'"]
