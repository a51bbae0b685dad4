"""Items files: what is read, and what is refused in one sentence."""

import pytest

from harness.errors import UsageFailure
from harness.queue import DOCUMENT_ITEMS, read_items


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "items"),
    [
        ("items.txt", b"a\nb\n", ("a", "b")),
        ("items.txt", b"a\r\nb", ("a", "b")),
        ("items.txt", b"\xef\xbb\xbfa\n\n\n", ("a",)),
        ("items.txt", "äpfel\na\n".encode(), ("äpfel", "a")),
        ("items.txt", b"a\na\n", ("a", "a")),
        ("items.txt", b" a \n", (" a ",)),
        ("items.json", b'["a b", "c"]', ("a b", "c")),
    ],
)
def test_items_are_read(tmp_path, name, content, items):
    assert read_items(write(tmp_path, name, content)) == items


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("items.txt", b"", "has no items; write one on each line."),
        ("items.txt", b"\n\n", "has no items; write one on each line."),
        ("items.txt", b"a\xff", "is not UTF-8 (byte 1); save it as UTF-8."),
        ("items.txt", b"a\n\nb\n", "item 2 of"),
        ("items.json", b"{", "is not JSON (line 1); correct it."),
        ("items.json", b"{}", "must be a JSON list of strings; correct it."),
        ("items.json", b"[1]", "must be a JSON list of strings; correct it."),
        ("items.json", b"[]", "has no items; write one on each line."),
        ("items.json", b'["a\\nb"]', "has a newline in it"),
        ("items.json", b'["a", ""]', "is empty; take it out."),
    ],
)
def test_bad_items_are_refused(tmp_path, name, content, sentence):
    path = write(tmp_path, name, content)
    with pytest.raises(UsageFailure) as caught:
        read_items(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_items_file_is_refused(tmp_path):
    with pytest.raises(UsageFailure, match="No such file or directory"):
        read_items(tmp_path / "none.txt")


def test_the_documents_items():
    assert " ".join(DOCUMENT_ITEMS) == "apple banana cherry date fig grape lemon melon orange"
