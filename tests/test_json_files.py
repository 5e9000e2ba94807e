import pytest

from selmem.errors import InputError
from selmem.json_files import read_object


def test_an_object_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"ä": [1]}', encoding="utf-8")
    assert read_object(tmp_path / "a.json", "write it") == {"ä": [1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.json does not exist; write it"),
        (b"{", r"a\.json is no JSON \(.*line 1.*\); write it"),
        (b"\xff", r"a\.json is no JSON \(.*0xff.*\); write it"),
        (b"[1]", r"a\.json holds a list, expected names and values; write it"),
    ],
)
def test_anything_else_is_named_with_what_mends_it(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_object(tmp_path / "a.json", "write it")
