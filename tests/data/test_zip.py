import hashlib
import struct
import zipfile

import pytest

from cancernet.data.archive.source import Source
from cancernet.errors import InputError
from tests.data.drawing import (
    clean_files,
    write_zip,
)
from tests.data.listings import list_archive


def test_encrypted_and_oddly_packed_members_are_rejected(tmp_path):
    files = clean_files(cases=1)
    odd = list(files)[:2]
    path = write_zip(tmp_path / "archive.zip", files)
    data = bytearray(path.read_bytes())
    for name, offset, value in ((odd[0], 8, 1), (odd[1], 10, 14)):
        entry = data.rindex(name.encode()) - 46
        struct.pack_into("<H", data, entry + offset, value)
    path.write_bytes(data)
    listing = list_archive(path)
    reasons = dict(listing.rejects)
    assert reasons == {
        odd[0]: "encrypted in the zip",
        odd[1]: "packed by a method other than stored and deflate",
    }
    assert len(listing) == len(files) - 2


@pytest.mark.parametrize("kept", [0, 3, 0.5, 0.9, -30, -1])
def test_a_truncated_zip_is_refused(tmp_path, kept):
    path = write_zip(tmp_path / "archive.zip", clean_files())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"archive\.zip.*download it again"):
        list_archive(path)


def test_a_zip_with_a_hole_in_it_is_refused(tmp_path):
    path = write_zip(tmp_path / "archive.zip", clean_files())
    data = path.read_bytes()
    path.write_bytes(data[:1000] + data[2000:])
    with pytest.raises(InputError, match="damaged zip"):
        list_archive(path)


def test_a_zip_in_the_long_format_and_behind_a_stub_is_read(tmp_path):
    files = clean_files()
    plain = list_archive(write_zip(tmp_path / "plain.zip", files))
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    listing = list_archive(path)
    assert listing.path == plain.path
    assert (listing.place["size"] == plain.place["size"]).all()


def central_directory(path):
    """The bytes from the first entry to the end record, found by means of `zipfile`."""
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    tail = path.read_bytes()[start:]
    end = tail.rindex(b"PK\x05\x06")
    long_end = tail.find(b"PK\x06\x06")
    return tail[: end if long_end < 0 else long_end]


@pytest.mark.parametrize("form", ["plain", "comment", "stub", "long", "long behind a stub"])
def test_the_fingerprint_of_a_zip_is_the_hash_of_its_central_directory(tmp_path, monkeypatch, form):
    """Stores in the users' caches are found by it."""
    if "long" in form:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)  # from here on zipfile writes zip64 end records
    path = write_zip(tmp_path / "archive.zip", clean_files())
    if form == "comment":
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"from the clinic"
    if "stub" in form:
        path.write_bytes(b"#!/bin/sh\n" * 99 + path.read_bytes())
    directory = central_directory(path)
    assert (b"PK\x06\x06" in path.read_bytes()) == ("long" in form)
    assert directory.startswith(b"PK\x01\x02")
    assert Source(path).fingerprint == hashlib.blake2b(directory).hexdigest()
    assert len(list_archive(path)) == 12


def test_a_zip_that_claims_nonsense_is_refused_in_one_line(tmp_path):
    path = write_zip(tmp_path / "archive.zip", clean_files())
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    name = data.index(b"PK\x01\x02") + 46
    claims = {
        "a directory larger than the file": (end + 12, b"\xff\xff\xff\x7f"),
        "a directory of another length": (end + 12, b"\x10\0\0\0"),
        "a name that is no UTF-8": (name - 38, b"\0\x08"),
        "a version to come": (name - 40, b"\xff\0"),
        "an entry of another kind": (name - 46, b"XY"),
    }
    for claim, (place, value) in claims.items():
        broken = data[:place] + value + data[place + len(value) :]
        if "UTF-8" in claim:
            broken = broken[:name] + b"\xff\xfe" + broken[name + 2 :]
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"archive\.zip is a damaged zip.*download it again"):
            list_archive(path)
