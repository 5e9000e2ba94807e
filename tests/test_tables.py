import os
import stat

import pyarrow as pa
import pytest

from selmem.errors import InputError
from selmem.tables import (
    atomic_path,
    config_hash,
    read_metadata,
    read_table,
    write_table,
    write_text,
)

TABLE = pa.table({"word": ["a", "b"], "n_tokens": [1, 2]})


def test_a_table_comes_back_with_its_metadata_and_hash(tmp_path):
    write_table(TABLE, tmp_path / "words.parquet", metadata={"encoder": "tiny", "lengths": [4, 16]})
    assert read_table(tmp_path / "words.parquet").equals(TABLE)
    metadata = read_metadata(tmp_path / "words.parquet")
    assert metadata["encoder"] == "tiny"
    assert metadata["config_hash"] == config_hash({"encoder": "tiny", "lengths": [4, 16]})


def test_config_hash_ignores_order_but_not_values():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "report.html"
    write_text(path, "old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_a_truncated_table_is_wrong_input_that_names_the_file(tmp_path):
    path = tmp_path / "words.parquet"
    write_table(TABLE, path, metadata={})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"words\.parquet is not a whole Parquet file"):
        read_table(path)
    with pytest.raises(InputError, match=r"words\.parquet"):
        read_metadata(path)


def test_an_absent_table_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_table(tmp_path / "words.parquet")


def test_a_file_where_a_folder_should_be_is_wrong_input(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "out" / "report.html", "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_read_only_folder_is_wrong_input(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "report.html", "x")
