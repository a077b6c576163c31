"""VTAB's 1,000 examples by name: writes the ids of each task's examples to a file, and finds the examples of such a file in
data that another version, order or machine prepared.

The benchmark defines its 800 + 200 examples by their place in the files that TFDS wrote, which only holds for one version
(and, of Caltech101, one machine: its train split is drawn in the order in which a file system lists). Ids are defined
in `data.vtab.example_ids`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from vit_jax.data.formats.catalogue import COMMAND, find_data_dir
from vit_jax.data.formats.reading_order import reading_order
from vit_jax.data.formats.records import find_builder, open_builder
from vit_jax.data.splits import parse_split, split_names
from vit_jax.data.vtab.example_ids import ids_of, write_whole
from vit_jax.data.vtab.tasks import FIRST_1000, PREFIX, TASKS, Task, find_task, stored_split
from vit_jax.files import read_json, read_regular
from vit_jax.types import UserError

FILE = "vtab_split_ids.json"  # in the folder of prepared data sets
VARIABLE = "VTAB_SPLIT_IDS"  # names another place
FORMAT = "vit_jax: ids of VTAB's examples, 1"
LISTS = ("train800", "val200", "test")


class SplitIds(NamedTuple):
    """A file of ids.

    Args:
      path: where it is.
      sha256: of its bytes.
      tasks: {task: {train800, val200, and where they are listed, test and trainval1000: ids in order}}.
    """

    path: str
    sha256: str
    tasks: Mapping[str, Mapping[str, Sequence[str]]]


def read(path: str) -> SplitIds:
    """Reads a file of ids.

    Raises:
      UserError: it is missing, not such a file, or lists an id twice.
    """
    path = os.path.expanduser(path)
    try:
        content = read_json(path, advice="export the ids again, or take the file away")
    except UserError as error:
        raise UserError(f"cannot read the ids of VTAB's examples: {error}") from error
    tasks = content.get("tasks")
    whole = content.get("format") == FORMAT and isinstance(tasks, dict) and all(map(_is_lists, tasks.values()))
    if not whole:
        raise UserError(
            f"{path}: expected a file with format {FORMAT!r}, as `{COMMAND} --split-ids=export --to=FILE` writes it"
        )
    wrong = []
    for task, lists in content["tasks"].items():
        find_task(task)
        if not set(LISTS[:2]) <= set(lists) <= {*LISTS, FIRST_1000}:
            wrong.append(
                f"{task} lists {', '.join(sorted(lists)) or 'nothing'}, expected train800, val200 and maybe test and {FIRST_1000}"
            )
        # The first 1,000 are among the others: only they may be listed again.
        for part, seen in (
            (FIRST_1000, lists.get(FIRST_1000, ())),
            ("", [name for key, ids in lists.items() if key != FIRST_1000 for name in ids]),
        ):
            if twice := len(seen) - len(set(seen)):
                wrong.append(f"{task} lists {twice} ids more than once{part and f' in {part}'}")
    if wrong:
        raise UserError(f"{path}: {'; '.join(wrong)}")
    return SplitIds(path, hashlib.sha256(read_regular(path)).hexdigest(), content["tasks"])


def _is_lists(lists: Any) -> bool:
    """Whether a value is {name: [ids]}."""
    return isinstance(lists, dict) and all(
        isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists.values()
    )


def find(data_dir: str) -> SplitIds | None:
    """The ids that runs go by: the file $VTAB_SPLIT_IDS names, else that in the folder of prepared data; None if neither is.

    Args:
      data_dir: folder of prepared data sets; empty for the default.
    """
    named = os.environ.get(VARIABLE, "")
    path = os.path.expanduser(named) or os.path.join(find_data_dir(data_dir), FILE)
    return read(path) if named or epath.Path(path).exists() else None


def locate(builder: Any, dataset: str, split: str, ids: SplitIds) -> tuple[str, np.ndarray] | None:
    """Finds a task's examples in prepared data.

    Args:
      builder: of the prepared data set.
      dataset: `vtab/TASK`.
      split: train800, val200, train800val200 or test.
      ids: the file.

    Returns:
      (stored splits in TFDS's syntax, int64 (n,) places in them), in the order of the file; None where the file leaves the
      split as it is stored: it does not list the task, or lists no test and none of its ids lies in the stored one.

    Raises:
      UserError: ids that are missing, or appear more than once; a test split that holds what is trained on.
    """
    name, task = dataset.removeprefix(PREFIX), find_task(dataset)
    if name not in ids.tasks:
        return None
    lists, (stored, index) = ids.tasks[name], index_of(builder, task)
    counts = {s: builder.info.splits[s].num_examples for s in builder.info.splits}
    starts = dict(zip(stored, np.cumsum([0, *(counts[s] for s in stored)]).tolist(), strict=False))
    places_of = {}
    for part in (split,) if split in lists and split in ("test", FIRST_1000) else LISTS[:2]:
        wanted = parse_split(dataset, stored_split(task, part), counts)
        expected = sum(s.stop - s.start for s in wanted)
        if (expected := min(expected, 1000) if part == FIRST_1000 else expected) != len(lists[part]):
            raise UserError(f"{dataset}: {ids.path} lists {len(lists[part]):,} ids as {part}, expected {expected:,}")
        home = [(starts[s.name], starts[s.name] + counts[s.name]) for s in wanted]
        places_of[part] = _place(index, lists[part], f"{dataset}: of the ids in {ids.path}", home)
    if split == FIRST_1000 and split not in lists:
        first = starts[task.train800.split("[")[0]] + np.arange(len(places_of["train800"]))
        if not np.array_equal(places_of["train800"], first):
            raise UserError(
                f"{dataset}: {ids.path} does not list {FIRST_1000}, the examples of protocol=light, and this "
                f"{builder.info.full_name} has another order than the data that it was written from; export the ids again there"
            )
        return None
    if split == "test" and "test" not in lists:
        test = [(starts[s.name] + s.start, starts[s.name] + s.stop) for s in parse_split(dataset, task.test, counts)]
        places = np.concatenate(list(places_of.values()))
        if overlap := sum(int(((places >= low) & (places < high)).sum()) for low, high in test):
            raise UserError(
                f"{dataset}: {overlap:,} of the examples that {ids.path} lists for training and validation lie in "
                f"{task.test} of this {builder.info.full_name}, which would be the test; export the ids again where the "
                "data has the benchmark's order (test is then listed too), or remove the file"
            )
        return None
    parts = LISTS[:2] if split == "train800val200" else (split,)
    return "+".join(stored), np.concatenate([places_of[part] for part in parts])


def _place(
    index: Mapping[str, Sequence[int]], names: Sequence[str], where: str, home: Sequence[tuple[int, int]]
) -> np.ndarray:
    """The one place of each id, in `home` (from, to) where two stored splits use one name; whatever is missing or ambiguous
    is counted before it is refused."""
    places, missing, several = [], [], []
    for name in names:
        candidates = list(index.get(name, ()))
        if len(candidates) > 1:
            candidates = [c for c in candidates if any(a <= c < b for a, b in home)] or candidates
        if not candidates:
            missing.append(name)
        elif len(candidates) > 1:
            several.append(name)
        places.append(candidates[0] if candidates else -1)
    if missing:
        raise UserError(
            f"{where}, {len(missing):,} of {len(names):,} are not in the prepared data ({', '.join(missing[:3])}, ...); "
            "prepare the whole data set, or take the ids of this one"
        )
    if several:
        raise UserError(
            f"{where}, {len(several):,} of {len(names):,} name more than one prepared example ({', '.join(several[:3])})"
        )
    return np.array(places, np.int64)


def stored_splits(builder: Any, task: Task) -> tuple[str, ...]:
    """The stored splits that hold a task's examples, whichever way they are divided: `train+validation+test`."""
    named = {name for part in LISTS for name in split_names(stored_split(task, part))}
    return tuple(sorted(named & set(builder.info.splits)))


def index_of(builder: Any, task: Task) -> tuple[tuple[str, ...], Mapping[str, Sequence[int]]]:
    """{id: places} over the stored splits of a task, one after the other. Read once, then kept beside the data."""
    stored = stored_splits(builder, task)
    names = [name for split in stored for name in ids_of(builder, task.dataset, split)]
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    return stored, places


def first_1000(info: Any, task: Task) -> np.ndarray:
    """Places in a task's stored `trainval` of the examples that the benchmark's own script trains on; int64 (1000,)."""
    splits = dict(info.splits.items())
    slices = parse_split(info.full_name, task.trainval, {name: s.num_examples for name, s in splits.items()})
    return reading_order(slices, {name: s.shard_lengths for name, s in splits.items()})[:1000]


def _stored_ids(builder: Any, task: Task, split: str) -> list[str]:
    counts = {s: builder.info.splits[s].num_examples for s in builder.info.splits}
    slices = parse_split(builder.info.full_name, split, counts)
    return [i for s in slices for i in ids_of(builder, task.dataset, s.name)[s.start : s.stop]]


def export(names: Sequence[str], path: str, data_dir: str = "") -> tuple[SplitIds, list[str]]:
    """Writes the ids of tasks, as their data is prepared here.

    Args:
      names: tasks, with or without `vtab/`; none for all that are prepared.
      path: the new file.
      data_dir: folder of prepared data sets; empty for the default.

    Returns:
      (the file, tasks left out because their data is not prepared).

    Raises:
      UserError: a task that was named is not prepared, or none is; a data set that does not name its examples.
    """
    chosen = [name.removeprefix(PREFIX) for name in names] or list(TASKS)
    tasks, versions, left_out = {}, {}, []
    for name in chosen:
        task = find_task(name)
        if not names and find_builder(task.dataset, find_data_dir(data_dir)) is None:
            left_out.append(name)
            continue
        builder = open_builder(task.dataset, data_dir)
        lists = {}
        for part in LISTS:
            # Most test splits are splits of their own; the others are what an order or a draw left over.
            if part == "test" and "[" not in task.test and task.dataset != "caltech101":
                continue
            lists[part] = _stored_ids(builder, task, stored_split(task, part))
        trainval = _stored_ids(builder, task, task.trainval)
        lists[FIRST_1000] = [trainval[i] for i in first_1000(builder.info, task)]
        tasks[name], versions[name] = lists, builder.info.full_name
    if not tasks:
        raise UserError(f"none of VTAB's data sets is prepared in {find_data_dir(data_dir)}: see --check")
    write_whole(path, json.dumps({"format": FORMAT, "prepared_from": versions, "tasks": tasks}, indent=0).encode())
    return read(path), left_out


def place(path: str, data_dir: str = "") -> tuple[SplitIds, list[str]]:
    """Checks a file of ids against what is prepared, and copies it to where runs find it.

    Args:
      path: the file.
      data_dir: folder of prepared data sets; empty for the default.

    Returns:
      (the file in its place, tasks that could not be checked because their data is not prepared).

    Raises:
      UserError: an id that is missing or ambiguous, in any task; nothing is copied then.
    """
    ids, unchecked, wrong = read(os.path.expanduser(path)), [], []
    root = find_data_dir(data_dir)
    for name in ids.tasks:
        if (builder := find_builder(find_task(name).dataset, root)) is None:
            unchecked.append(name)
            continue
        for split in ("train800val200", "test", *({FIRST_1000} & set(ids.tasks[name]))):
            try:
                locate(builder, PREFIX + name, split, ids)
            except UserError as error:
                wrong.append(str(error))
                break
    if wrong:
        raise UserError("\n".join([*wrong, f"{path} was not put in its place"]))
    write_whole(os.path.join(root, FILE), epath.Path(ids.path).read_bytes())
    return read(os.path.join(root, FILE)), unchecked
