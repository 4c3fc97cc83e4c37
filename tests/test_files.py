"""media/files.py: whole or not at all."""

from __future__ import annotations

import hashlib

import pytest

from media.files import (
    add_record,
    digest,
    file_label,
    read_records,
    replacing,
    stamp,
    write_json,
)


def test_a_fault_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [2, object()])  # fails half way
    assert path.read_text() == "[1]" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["missing/a", "file/a", "folder"])
def test_errors_name_what_was_asked_for(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as found, replacing(tmp_path / name) as file:
        file.write("x")
    assert found.value.filename == str(tmp_path / name)
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_tells_files_apart(tmp_path):
    path = tmp_path / "a.bin"
    assert stamp(path) is None
    path.write_bytes(b"x" * 5)
    assert stamp(path) == [5, path.stat().st_mtime_ns]
    assert digest(path) == hashlib.sha256(b"xxxxx").hexdigest()
    assert file_label(path) == f"a.bin {digest(path)[:12]}"


def test_a_log_survives_a_kill(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_records(path) == []
    records = [{"n": 1, "name": "é \udcfc"}, {"n": 2}, {"n": 3}]
    add_record(path, records[0])
    add_record(path, records[1])
    with open(path, "ab") as file:
        file.write(b'{"n": 2.5, "na')  # cut short
    add_record(path, records[2])
    with open(path, "ab") as file:
        file.write(b'[1]\n\xff\n{"n": 4, "n')
    assert read_records(path) == records
