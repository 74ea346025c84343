"""``--llm-prune``: files whose suite is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project


def test_files_of_a_suite_that_is_gone_are_shown_and_then_removed(tuned: Project) -> None:
    """Nothing goes before it was seen; the suite's own files stay, and no test runs."""
    directory = tuned.pytester.path / "llmtune"
    orphan = directory / "gone.cassette.json"
    orphan.write_text("{}", encoding="utf-8")
    result = tuned.run("--llm-prune")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["would remove llmtune/gone.cassette.json", "next: pytest --llm-prune=yes"])
    assert orphan.exists()
    result = tuned.run("--llm-prune=yes")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["removed llmtune/gone.cassette.json"])
    result.assert_outcomes()
    assert "!!!" not in result.stdout.str()
    assert sorted(path.name for path in directory.iterdir()) == ["sums.cassette.json", "sums.lock.yaml"]
    tuned.run("--llm-prune").stdout.fnmatch_lines(["nothing to remove"])


def test_a_selection_is_refused(tuned: Project) -> None:
    """With -k the other suites' files would look like orphans; and so would those of xdist's controller, which collects none."""
    for more in (["-k", "nothing"], ["-n", "2"], ["test_sums.py"], ["--ignore=test_sums.py"]):
        result = tuned.run("--llm-prune=yes", *more)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert (tuned.pytester.path / "llmtune" / "sums.lock.yaml").exists()


def test_what_cannot_be_collected_is_not_gone(tuned: Project) -> None:
    """A file that cannot be imported, or a suite that is declared wrongly, keeps its files."""
    path = tuned.pytester.path / "test_sums.py"
    good = path.read_text(encoding="utf-8")
    for broken in (good.replace("n=randint", "nn=randint"), f"import nosuch\n{good}"):
        path.write_text(broken, encoding="utf-8")
        result = tuned.run("--llm-prune=yes")
        assert result.ret != pytest.ExitCode.OK
        assert (tuned.pytester.path / "llmtune" / "sums.lock.yaml").exists()


def test_what_was_not_looked_at_is_not_gone(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below another directory, beside ``testpaths``, or in a file that skips itself here."""
    root, lock = tuned.pytester.path, tuned.pytester.path / "llmtune" / "sums.lock.yaml"
    (root / "sub" / "llmtune").mkdir(parents=True)
    orphan = root / "sub" / "llmtune" / "gone.lock.yaml"
    orphan.write_text("", encoding="utf-8")
    (root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(root / "sub")
        result = tuned.run("--llm-prune=yes")
    result.stdout.fnmatch_lines(["removed llmtune/gone.lock.yaml"])
    assert lock.exists()
    orphan.parent.mkdir()
    orphan.write_text("", encoding="utf-8")
    (root / "pytest.ini").write_text("[pytest]\ntestpaths = sub\n", encoding="utf-8")
    tuned.run("--llm-prune=yes").stdout.fnmatch_lines(["removed sub/llmtune/gone.lock.yaml"])
    assert lock.exists()
    (root / "pytest.ini").unlink()
    path = root / "test_sums.py"
    path.write_text(
        "import pytest\npytest.importorskip('nosuch')\n" + path.read_text(encoding="utf-8"), encoding="utf-8"
    )
    result = tuned.run("--llm-prune=yes")
    result.stderr.fnmatch_lines(["*1 file skipped as a whole"])
    assert lock.exists()


def test_an_unknown_word_is_refused(tuned: Project) -> None:
    """With what is valid."""
    result = tuned.run("--llm-prune=everything")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--llm-prune is 'everything'; valid: nothing or show, to look; yes, to remove*"])
