"""Packs with Apache Beam, for sets that outgrow a machine: a shard is an element of the pipeline, so images move once, from
where they lie to the worker that writes them, and the result is that of packing here, file by file.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from vit_jax.data.prepare.pack import NewShard, WriteShards, Written, write_shard
from vit_jax.files import read_json
from vit_jax.types import UserError

INSTALL = "pip install -r requirements-beam.txt"


def make_run(options: str = "") -> WriteShards:
    """Makes the `run` of `data.prepare.pack.pack`.

    Args:
      options: Beam's pipeline options as on its command line, `--runner=DataflowRunner --project=...`; empty for the
        DirectRunner. Workers on other machines need this package, its requirements and requirements-beam.txt (Beam's
        `--setup_file` or `--sdk_container_image`), and source and target where all of them can reach both.

    Raises:
      UserError: Beam is not installed, or does not know the runner.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            f"--beam needs Apache Beam, which is not installed here ({error}): `{INSTALL}`, best in an environment of its "
            "own; without --beam this machine packs alone"
        ) from error
    _show_package_to_workers()
    try:
        flags = shlex.split(options)
        parsed = PipelineOptions(flags)
        _check_runner(parsed)
    except ValueError as error:
        raise UserError(f"--beam={options!r}: {error}; expected Beam's own options, `--runner=NAME ...`") from error

    def run(shards: Sequence[NewShard], classes: tuple[str, ...]) -> list[Written]:
        import apache_beam as beam

        with beam.Pipeline(options=parsed) as pipeline:
            collection = pipeline | "shards" >> beam.Create(list(shards), reshuffle=True)
            # A result travels as a file beside its shard: every runner can write one, few hand values back.
            _ = collection | "write" >> beam.Map(_write, classes)
        return [_collect(shard) for shard in shards]

    return run


def _check_runner(options: object) -> None:
    """Raises ValueError for a runner that Beam has no name for, before anything is read."""
    from apache_beam.options.pipeline_options import StandardOptions
    from apache_beam.runners.runner import create_runner

    create_runner(options.view_as(StandardOptions).runner or "DirectRunner")  # type: ignore[attr-defined]


def _show_package_to_workers() -> None:
    """A clone that is not installed is found by Beam's worker processes on this machine through PYTHONPATH."""
    root = str(Path(__file__).resolve().parents[3])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])


def _result_path(shard: NewShard) -> epath.Path:
    place = epath.Path(shard.path)
    return place.parent / f"result.{place.name}.json"


def _write(shard: NewShard, classes: tuple[str, ...]) -> None:
    """Runs on a worker, perhaps more than once for a shard (Beam repeats what failed or is slow): the last one holds."""
    _result_path(shard).write_text(json.dumps(write_shard(shard, classes, threads=1)._asdict()))


def _collect(shard: NewShard) -> Written:
    place = _result_path(shard)
    written = Written(**read_json(place))
    place.unlink()
    return written
