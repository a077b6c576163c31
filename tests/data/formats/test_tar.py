"""Tar files by position: the same members as Python's tarfile finds, and damage that it passes over."""

import io
import os
import tarfile
import threading

import numpy as np
import pytest

from vit_jax.data.formats import tar
from vit_jax.data.formats.tar import LINK, OTHER, REGULAR, DamagedTar, Member, TarFile, iter_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def write_tar(path, members, fmt=tarfile.PAX_FORMAT, **options):
    """members: {name: bytes}, or pairs."""
    with tarfile.open(path, "w", format=fmt, **options) as file:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def members_of(path):
    return list(iter_members(TarFile(str(path))))


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_gives_the_members_that_tarfile_gives(tmp_path, fmt):
    long = "a" * 60 + "/" + "b" * 80 + ".jpg"  # ustar splits it into prefix and name, the others extend
    names = ["plain.jpg", "./dot.cls", "empty.txt", "folder/inner.name.png", long]
    if fmt != "ustar":
        names += ["c" * 300 + ".jpg", "Größe/日本.jpg"]
    sizes = (0, 1, 511, 512, 513, 5000, 7)
    path = write_tar(tmp_path / "a.tar", {n: bytes([i]) * sizes[i] for i, n in enumerate(names)}, FORMATS[fmt])
    with tarfile.open(path, "a", format=FORMATS[fmt]) as file:
        for name, kind in (("some/folder", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "plain.jpg" if kind != tarfile.DIRTYPE else ""
            file.addfile(info)
        file.addfile(tarfile.TarInfo("last.cls"))
    found = members_of(path)
    with tarfile.open(path) as file:
        expected = [
            (m.name, m.offset_data, m.size, REGULAR if m.isreg() else OTHER if m.isdir() else LINK) for m in file
        ]
    stripped = [(m.name.decode().rstrip("/"), m.offset, m.size, m.kind) for m in found]
    assert stripped == expected
    file = TarFile(str(path))
    assert [file.read(m.offset, m.size) for m in found[: len(names)]] == [
        bytes([i]) * sizes[i] for i in range(len(names))
    ]


@pytest.mark.parametrize("fmt", ["gnu", "pax"])
def test_a_member_of_more_than_8_gib_is_stepped_over(tmp_path, fmt):
    size = 9 * 2**30 + 5
    info = tarfile.TarInfo("huge.bin")
    info.size = size
    head = info.tobuf(format=FORMATS[fmt])
    tail = write_tar(tmp_path / "tail.tar", {"after.cls": b"7"}).read_bytes()
    with open(tmp_path / "a.tar", "wb") as file:  # sparse: takes no room
        file.write(head)
        file.seek(len(head) + size + -size % 512)
        file.write(tail)
    end = len(head) + size + 507
    assert members_of(tmp_path / "a.tar") == [
        Member(b"huge.bin", len(head), size, REGULAR),
        Member(b"after.cls", end + 512, 1, REGULAR),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:700], r"truncated: it ends at byte 700, inside a.jpg \(to 1,512\)"),
        (lambda d: d[:2000], "truncated: it ends at byte 2,000, without a tar file's end mark"),
        (lambda d: d[: 512 + 1024], "truncated: it ends at byte 1,536, without"),  # between two members
        (lambda d: b"", r"empty \(0 bytes\)"),
        (lambda d: d[:300], "no tar file: it begins with b'a.jpg"),
        (lambda d: d + d, "more data after the end mark at byte 2,560: several tar files in one"),
        (lambda d: d[:1536] + b"x" + d[1537:], "damaged: no header of a member at byte 1,536"),
        (lambda d: b"<html>" + bytes(600), "no tar file: it begins with b'<html>"),
        (lambda d: b"\x1f\x8b\x08" + bytes(600), "compressed.* run `gunzip`"),
        (lambda d: b"\x28\xb5\x2f\xfd" + bytes(600), "compressed.* run `unzstd`"),
    ],
)
def test_damage_is_said_with_its_place(tmp_path, change, message):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": bytes(1000), "a.cls": b"3"}, tarfile.USTAR_FORMAT)
    assert [m.name for m in members_of(path)] == [b"a.jpg", b"a.cls"]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedTar, match=message):
        members_of(path)


def test_a_header_that_wants_a_gigabyte_of_name_and_a_bad_pax_record_are_damage(tmp_path):
    info = tarfile.TarInfo("x")
    info.size, info.type = 2**21, b"L"
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**21 + 1024))
    with pytest.raises(DamagedTar, match="wants 2,097,152 bytes for a name"):
        members_of(tmp_path / "a.tar")
    for record in (b"99 path=x\n", b"x", b"3 a", b"10 size=a\n"):
        info.size, info.type = len(record), b"x"
        (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + bytes(1024))
        with pytest.raises(DamagedTar, match="damaged: the pax header"):
            members_of(tmp_path / "a.tar")


def test_random_bytes_in_headers_never_hang_or_crash(tmp_path):
    rng = np.random.default_rng(0)
    whole = write_tar(tmp_path / "a.tar", {"f/" + "n" * 120 + f"{i}.jpg": bytes(100) for i in range(3)}).read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        (tmp_path / "b.tar").write_bytes(data)
        try:
            members_of(tmp_path / "b.tar")
        except DamagedTar:
            continue


def test_reading_is_by_position_from_any_thread_and_ends_with_the_file(tmp_path):
    data = np.random.default_rng(1).bytes(100_000)
    (tmp_path / "bytes").write_bytes(data)
    file, wrong = TarFile(str(tmp_path / "bytes")), []

    def read(seed):
        for start in np.random.default_rng(seed).integers(0, 99_000, 200).tolist():
            if file.read(start, 1000) != data[start : start + 1000]:
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert file.read(99_990, 50) == data[-10:]
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read(0, 1)


def test_what_is_not_local_is_read_through_epath(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", {"a.jpg": b"picture", "a.cls": b"3"})
    monkeypatch.setattr(tar.epath, "Path", lambda path: tmp_path / path.removeprefix("gs://bucket/"))
    file = TarFile("gs://bucket/a.tar")
    assert file.size == os.path.getsize(tmp_path / "a.tar")
    assert [file.read(m.offset, m.size) for m in iter_members(file)] == [b"picture", b"3"]
    file.close()
