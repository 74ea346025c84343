"""Finding data files: paths, globs, zips; absent ones, large ones, and ways out of the project."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from pytest_llmtune.data import readers as files
from pytest_llmtune.data.readers import DataFile, find
from pytest_llmtune.errors import SuiteError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with data, and something beside it that is none of its business."""
    root = tmp_path / "project with spaces 프로젝트"
    (root / "data" / "deep").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "notes.txt", "odd[1].jsonl"):
        (root / "data" / name).write_text(f'{{"name": "{name}"}}\n')
    (tmp_path / "secret.jsonl").write_text('{"secret": 1}\n')
    return root


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def names(found: tuple[DataFile, ...]) -> list[str]:
    return [file.shown for file in found]


def complaint(source: str, base: Path, root: Path | None = None) -> str:
    with pytest.raises(SuiteError) as caught:
        find(source, base, root)
    return str(caught.value)


def test_a_path_is_relative_to_the_suite(project: Path) -> None:
    """And may be absolute; names are shown as the suite would write them."""
    assert names(find("data/a.jsonl", project)) == ["data/a.jsonl"]
    assert find(str(project / "data/a.jsonl"), project)[0].read() == b'{"name": "a.jsonl"}\n'


def test_globs_give_files_in_order_of_names(project: Path) -> None:
    """``**`` goes deep; a name that looks like a glob but exists is a name."""
    assert names(find("data/?.jsonl", project)) == ["data/a.jsonl", "data/b.jsonl"]
    assert names(find("data/**/[a-c].jsonl", project)) == ["data/a.jsonl", "data/b.jsonl", "data/deep/c.jsonl"]
    assert names(find("data/odd[1].jsonl", project)) == ["data/odd[1].jsonl"]


def test_absence_is_reported_with_the_nearest_name(project: Path) -> None:
    """A directory, a glob without matches and a misspelled name have different messages."""
    assert complaint("data/aa.jsonl", project).endswith("aa.jsonl' (did you mean 'a.jsonl'?)")
    assert "no file matches" in complaint("data/*.csv", project)
    assert "is a directory; name its files, as in 'data/*.jsonl'" in complaint("data", project)
    assert "no file" in complaint("nowhere/a.jsonl", project)
    assert complaint("a\0b", project).endswith("a\\x00b'")
    assert "is not a usable path: File name too long" in complaint("a" * 5000, project)


def test_unknown_endings(project: Path) -> None:
    """The error lists the endings there are."""
    with pytest.raises(
        SuiteError, match=r"data/notes.txt: unknown kind of file; valid endings: .jsonl, .ndjson, .json"
    ):
        _ = find("data/notes.txt", project)[0].format


def test_gzip(project: Path) -> None:
    """Packed files are unpacked in passing; broken ones are refused."""
    (project / "p.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    (project / "q.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:20])
    (project / "r.jsonl.gz").write_bytes(b"plain")
    assert find("p.jsonl.gz", project)[0].read() == b"{}\n"
    for name in ("q.jsonl.gz", "r.jsonl.gz"):
        with pytest.raises(SuiteError, match=f"{name}: cannot be read"):
            find(name, project)[0].read()


def test_limit_of_size(project: Path) -> None:
    """A file that is larger, or becomes larger by unpacking, is refused."""
    (project / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 1_000_000))
    assert len(find("bomb.jsonl.gz", project)[0].read(1_000_000)) == 1_000_000
    with pytest.raises(SuiteError, match="larger than the limit of 999,999 bytes"):
        find("bomb.jsonl.gz", project)[0].read(999_999)


def test_zip_members(project: Path) -> None:
    """One member, a glob of members, or the only one there is."""
    zipped(project / "exam.zip", {"test/2.jsonl": b"two", "test/1.jsonl": b"one", "README.md": b"", "x.csv": b"a\n1"})
    zipped(project / "one.ZIP", {"only.csv": b"a\n1", "LICENSE": b""})
    assert names(find("exam.zip/test/*.jsonl", project)) == ["exam.zip/test/1.jsonl", "exam.zip/test/2.jsonl"]
    assert find("exam.zip/x.csv", project)[0].read() == b"a\n1"
    assert [(file.shown, file.format) for file in find("one.ZIP", project)] == [("one.ZIP/only.csv", "csv")]
    assert find("*.zip/x.csv", project)[0].read() == b"a\n1"


def test_zip_members_packed_again(project: Path) -> None:
    """A .gz inside of a zip is unpacked within the same limit."""
    zipped(project / "z.zip", {"a.jsonl.gz": gzip.compress(b"{}" + b" " * 5000)})
    assert find("z.zip", project)[0].read()[:2] == b"{}"
    with pytest.raises(SuiteError, match="larger than the limit"):
        find("z.zip", project)[0].read(100)


def test_wrong_members(project: Path) -> None:
    """Absent, several, or none that is data."""
    zipped(project / "exam.zip", {"b.jsonl": b"", "a.jsonl": b""})
    zipped(project / "empty.zip", {"README": b""})
    assert complaint("exam.zip/c.jsonl", project) == (
        "'exam.zip/c.jsonl': no such member in exam.zip; there are 'a.jsonl', 'b.jsonl'"
    )
    assert "name what to read, as in 'exam.zip/a.jsonl'" in complaint("exam.zip", project)
    assert "there are none" in complaint("empty.zip", project)
    (project / "broken.zip").write_bytes(b"PK no zip")
    assert "not a usable zip" in complaint("broken.zip", project)
    assert "no file" in complaint("absent.zip/a.jsonl", project)


@pytest.mark.parametrize("name", ["../../etc/evil.jsonl", "/etc/evil.jsonl", "a/../../evil.jsonl"])
def test_members_that_lead_out_of_the_archive(project: Path, name: str) -> None:
    """Nothing is unpacked to disk, and such names are refused all the same."""
    zipped(project / "evil.zip", {name: b"{}"})
    assert "whose name leads out of the archive" in complaint("evil.zip", project)
    assert not list(project.parent.rglob("evil.jsonl"))


def test_zip_bombs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The members' own sizes are added up before anything is read."""
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    zipped(project / "bomb.zip", {f"{number}.jsonl": b" " * 6_000 for number in range(2)})
    assert "12,000 bytes in 2 members are more than the limit of 10,000 bytes" in complaint("bomb.zip/*.jsonl", project)


def test_encrypted_members(project: Path) -> None:
    """They are refused with a sentence, not a traceback."""
    path = zipped(project / "e.zip", {"a.jsonl": b"{}"})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1  # the flag "encrypted"
    path.write_bytes(bytes(data))
    with pytest.raises(SuiteError, match=r"e\.zip/a\.jsonl: cannot be read"):
        find("e.zip", project)[0].read()


@pytest.mark.parametrize(
    "source", ["../secret.jsonl", "../*.jsonl", "data/../../secret.jsonl", "/etc/*.json", "/**/*.jsonl"]
)
def test_nothing_outside_of_the_project(project: Path, source: str) -> None:
    """With a root, as for YAML suites, paths and globs stay inside; without, they are the user's own."""
    assert "is outside the project" in complaint(source, project, project)
    if source == "../secret.jsonl":
        assert names(find(source, project))


def test_links_out_of_the_project(project: Path) -> None:
    """A link counts as what it leads to."""
    (project / "data" / "link.jsonl").symlink_to(project.parent / "secret.jsonl")
    assert "is outside the project" in complaint("data/link.jsonl", project, project)
    assert "is outside the project" in complaint("data/*.jsonl", project, project)


def test_inside_of_the_project_with_a_root(project: Path) -> None:
    """The root itself is no obstacle."""
    assert len(find("data/?.jsonl", project, project)) == 2
    assert len(find("../data/a.jsonl", project / "data", project)) == 1


def test_too_many_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glob that matches a whole disk is stopped."""
    monkeypatch.setattr(files, "MAX_FILES", 2)
    assert "matches more than the limit of 2 files" in complaint("data/*.jsonl", project)


def test_unreadable_files(project: Path) -> None:
    """What vanishes between finding and reading is an error of ours."""
    [file] = find("data/a.jsonl", project)
    (project / "data/a.jsonl").unlink()
    with pytest.raises(SuiteError, match=r"data/a\.jsonl: cannot be read: No such file"):
        file.read()


def test_parquet_that_crashes_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow aborts the process on this file, which .ci/fuzz found; here it is one error."""
    pytest.importorskip("pyarrow")
    content = (Path(__file__).parents[1] / "fuzz" / "corpus" / "parquet" / "59739f29bf7c").read_bytes()
    with pytest.raises(SuiteError, match=r"bad\.parquet: not usable parquet: pyarrow crashes on it"):
        list(files.FORMATS["parquet"](content, "bad.parquet", None))
    monkeypatch.setattr(files, "_TRIAL_SECONDS", 1e-3)
    with pytest.raises(SuiteError, match=r"bad\.parquet: not usable parquet: reading it takes more than"):
        list(files.FORMATS["parquet"](content, "bad.parquet", None))
