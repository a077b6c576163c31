"""Prepares data sets for training, packs your own images, and checks prepared data.

TensorFlow is used if it is installed; without it, every set but sun397 and dmlab can be prepared. The archives of TFDS's sets
come from the network or from --source. A set that fails does not stop the others; the exit code is then 2.
"""

from __future__ import annotations

import os
import sys
import traceback

from vit_jax.cli.flags import Parser, add_data_dir
from vit_jax.process import EXIT_USER_ERROR, reports_user_errors
from vit_jax.types import UserError

EXAMPLES = """
vit_jax prepare cifar10 eurosat/rgb            by TFDS, from the network or --source
vit_jax prepare digits                         scikit-learn's handwritten digits; nothing to download
vit_jax prepare fashion_mnist --source=DIR     from local idx files; mnist, kmnist too
vit_jax prepare FOLDER --to=DIR                packs train/<class>/ or <class>/ into ArrayRecord
vit_jax prepare images.csv --to=DIR            the same, of a list of `path,label`
vit_jax prepare SHARDS --to=DIR                the same, of WebDataset's tar shards
vit_jax prepare FOLDER --to=DIR --beam         the same by Apache Beam (requirements-beam.txt), on this machine,
                                               or --beam="--runner=DataflowRunner ..." on many
vit_jax prepare FOLDER --to=DIR --short-side=256   makes larger images smaller, which are faster to read
vit_jax prepare --check                        which of the paper's data is here, and how to get the rest
vit_jax prepare --check cifar10 vtab/kitti     the same, of these
vit_jax prepare --check --record cifar10       writes the checksums that later checks compare
vit_jax prepare --split-ids=export --to=FILE   the ids of VTAB's 800 + 200 examples, [vtab/TASK...]
vit_jax prepare --split-ids=import --source=FILE   from now on those are the examples
"""


def prepare_one(name: str, source: str, data_dir: str) -> None:
    """Prepares a data set by name and prints the files on disk."""
    from vit_jax.data.prepare import prepare

    result = prepare.prepare(name, source, data_dir)
    counts = ", ".join(f"{split} {count:,}" for split, count in result.splits.items())
    print(f"{result.name} {'was already prepared' if result.existed else 'prepared'}: {counts}; in {result.folder}")
    for note in result.notes:
        print(f"note: {note}")


def pack_one(dataset: str, to: str, beam: str | None, short_side: int) -> None:
    """Packs a folder, list or tar shards and prints the counts of written and omitted images."""
    from vit_jax.data.prepare import pack_beam
    from vit_jax.data.prepare.pack import CORRUPT_LIST, pack

    run = None if beam is None else pack_beam.make_run(beam)
    packed = pack(dataset, to, threads=os.cpu_count() or 2, short_side=short_side, run=run)
    counts = ", ".join(f"{split} {count:,}" for split, count in packed.splits.items())
    print(f"{dataset} packed: {counts}; train on it with dataset={packed.folder}")
    if packed.corrupt:
        print(f"{len(packed.corrupt)} corrupt images were left out, listed in {packed.folder}/{CORRUPT_LIST}:")
        print("\n".join(f"  {line}" for line in packed.corrupt[:10]))


def move_split_ids(direction: str, names: list[str], file: str, data_dir: str) -> None:
    """Exports or installs the ids of VTAB's examples, and names the tasks."""
    from vit_jax.data.vtab import split_ids

    if direction == "export":
        ids, rest = split_ids.export(names, file, data_dir)
    else:
        ids, rest = split_ids.place(file, data_dir)
    counts = ", ".join(f"{task} {len(set().union(*lists.values())):,}" for task, lists in ids.tasks.items())
    print(f"ids in {ids.path} (sha256 {ids.sha256[:16]}): {counts}")
    if rest:
        print(f"{'left out' if direction == 'export' else 'not checked'}, since not prepared: {', '.join(rest)}")


def check_all(names: list[str], data_dir: str, record: bool) -> bool:
    """Prints a line or two for each data set; returns whether all of them are ready."""
    from vit_jax.data.formats.catalogue import find_data_dir
    from vit_jax.data.prepare.check import KNOWN, check

    findings = [check(name, data_dir, record) for name in names or KNOWN]
    width = max(len(finding.name) for finding in findings)
    print(f"looked in {find_data_dir(data_dir)}")
    for finding in findings:
        print(f"{finding.name:<{width}}  {finding.state:<8} {finding.detail}")
        if finding.action:
            print(f"{'':<{width}}  {'':<8} -> {finding.action}")
    ready = sum(finding.state == "ready" for finding in findings)
    print(f"{ready} of {len(findings)} are ready")
    return ready == len(findings)


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("prepare", EXAMPLES, __doc__)
    parser.add_argument(
        "names", nargs="*", help="digits, fashion_mnist, any TFDS name; or with --to a folder, list or tar shards"
    )
    parser.add_argument("--source", default="", help="folder of idx files, or of files fetched by hand; a file of ids")
    add_data_dir(parser)
    parser.add_argument("--to", default="", help="new folder to pack your own images into; a new file of ids")
    parser.add_argument("--beam", nargs="?", const="", metavar="OPTIONS", help="pack by Apache Beam, with its options")
    text = (
        "packing: reduce the shorter side of larger images to so many pixels (JPEG); recipes that need more are refused"
    )
    parser.add_argument("--short-side", type=int, default=0, metavar="PIXELS", help=text)
    parser.add_argument("--check", action="store_true", help="only look, and say what is missing")
    parser.add_argument("--record", action="store_true", help="with --check: write the checksums of what is there")
    parser.add_argument("--split-ids", choices=("export", "import"), help="the ids of VTAB's examples")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 after printing what the user should do."""
    parser = make_parser()
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if args.check:
        return 0 if check_all(args.names, args.data_dir, args.record) else EXIT_USER_ERROR
    if args.split_ids:
        file = args.to if args.split_ids == "export" else args.source
        if not file:
            parser.error(
                f"--split-ids={args.split_ids} wants --{'to' if args.split_ids == 'export' else 'source'}=FILE"
            )
        move_split_ids(args.split_ids, args.names, file, args.data_dir)
        return 0
    if not args.names:
        parser.error("name a data set, or --check")
    failed = False
    for name in args.names:
        try:
            if args.to and len(args.names) > 1:
                raise UserError(f"--to={args.to} takes one folder or list at a time, found {len(args.names)}")
            if args.beam is not None and not args.to:
                raise UserError(f"--beam packs your own images: name the folder to write, `{name} --to=DIR --beam`")
            if args.to:
                pack_one(name, args.to, args.beam, args.short_side)
            else:
                prepare_one(name, args.source, args.data_dir)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            if args.to:
                break
        except Exception as error:  # an unexpected error of one builder must not stop the others
            traceback.print_exc()
            print(f"error: {name}: unexpected {type(error).__name__}: {error}", file=sys.stderr)
            failed = True
    return EXIT_USER_ERROR if failed else 0
