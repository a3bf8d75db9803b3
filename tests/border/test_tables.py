"""Text tables as other programs write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.files.tables import read_table

PLAIN = "name,x_m,d_m\nA,1.5,2\n\n# moved\nB,,-3e1\n"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "t.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["comma", "semicolon", "decimal comma", "tab", "units"])
def test_what_other_programs_write_is_read_alike(tmp_path: Path, encoding: str, form: str) -> None:
    text = {
        "comma": PLAIN,
        "semicolon": PLAIN.replace(",", ";"),
        "decimal comma": PLAIN.replace(",", ";").replace(".", ","),
        "tab": PLAIN.replace(",", "\t"),
        "units": PLAIN.replace("d_m\n", "d_m\n,[m],[m]\n"),
    }[form]
    table = read_table(written(tmp_path, text, encoding))
    assert table.columns == ("name", "x_m", "d_m")
    assert table.texts("name") == ("A", "B")
    np.testing.assert_array_equal(table.numbers(["d_m", "x_m"]), [[2, 1.5], [-30, np.nan]])


def test_messages_name_the_file_and_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "# a comment\n\nx_m,y_m\n1,2\n\n3,four\n"))
    with pytest.raises(ValueError, match=r"t\.csv, line 6, column y_m: 'four' is not a number"):
        table.numbers(["x_m", "y_m"])
    with pytest.raises(ValueError, match=r"t\.csv, line 3: 3 columns, the header has 2"):
        read_table(written(tmp_path, "x,y\n1,2\n1,2,3\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("x,y\n", "no data"),
        ("x,x\n1,2\n", "names the column 'x' twice"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"t.csv.*{message}"):
        read_table(written(tmp_path, text))


def test_another_encoding_is_refused_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.csv is neither UTF-8 nor UTF-16"):
        read_table(written(tmp_path, "größe,x\n1,2\n", "latin-1"))


def test_columns_are_renamed_and_required_by_name(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "LONGITUDE,WAP1\n1,100\n2,-60\n"), {"LONGITUDE": "x_m"})
    table.require(["x_m"], "positions")
    np.testing.assert_array_equal(table.numbers(["WAP1"], missing=[100]), [[np.nan], [-60]])
    with pytest.raises(ValueError, match="lacks the column y_m"):
        table.require(["x_m", "y_m"], "positions")
    with pytest.raises(ValueError, match="no column 'LATITUDE' to rename"):
        read_table(written(tmp_path, "x,y\n1,2\n"), {"LATITUDE": "y_m"})
