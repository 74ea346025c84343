"""``llmtune compare`` and ``llmtune history`` in real git repositories."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from support import results
from support.locks import CONFIG, example, lock

from pytest_llmtune._util.stats import mcnemar_exact
from pytest_llmtune.cli import main
from pytest_llmtune.guard import results_file
from pytest_llmtune.guard.lockfile import Measured, StudySummary, TrialSummary
from pytest_llmtune.guard.verdict import Stale

if TYPE_CHECKING:
    from pathlib import Path

    from support.locks import Git

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("git")


def test_everything_that_changed_is_named(git: Git, llmtune: Run) -> None:
    git.commit("first", sums=lock(), same=lock("same"))
    config = {**CONFIG, "model": "big", "prompt": "Answer kindly: {question}"}
    prices = {"small": {"input": Decimal("0.2"), "output": Decimal("0.4")}}
    rows = (*lock(wrong=5).examples[:19], example(30, 1.0))
    git.commit("second", sums=lock(wrong=5, cost=8e-5, config=config, prices=prices, examples=rows), new=lock("new"))
    code, out, err = llmtune("compare", "HEAD~1", "HEAD", "--format=json")
    assert (code, err) == (0, "")
    found = {suite["suite"]: suite for suite in json.loads(out)["suites"]}
    sums = found["sums"]
    assert [found[name]["status"] for name in ("new", "same", "sums")] == ["added", "same", "changed"]
    assert (sums["score"]["before"]["value"], sums["score"]["now"]["value"]) == (0.9, 0.75)
    assert [Decimal(sums["usd_per_1000"][side]) for side in ("before", "now")] == [Decimal("0.05"), Decimal("0.08")]
    assert sums["config"] == {"model": {"before": "small", "now": "big"}}
    assert ["-", "briefly"] in sums["prompt"]
    assert ["+", "kindly"] in sums["prompt"]
    assert sums["prices"] == [["small", "input", "0.1", "0.2"]]
    assert sums["rows"] == {"shared": 19, "added": 1, "removed": 1, "relabelled": 0}
    assert sums["lost"] == [f"{index:016x}" for index in (2, 3, 4)]
    assert sums["p_value"] == pytest.approx(mcnemar_exact(3, 0))
    code, out, _ = llmtune("compare", "HEAD~1")  # the working tree
    assert code == 0
    assert "3 lost, 0 gained, p = 0.25" in out
    assert "Answer [-briefly-]{+kindly+}: {question}" in out
    assert "model: small -> big" in out
    assert llmtune("compare", "HEAD~1", "--fail-on-drop")[0] == 1
    assert llmtune("compare", "HEAD", "--fail-on-drop")[0] == 0


def test_what_cannot_be_compared_is_no_pass(git: Git, llmtune: Run) -> None:
    """A suite that is gone, or has no score any more, may hide a drop."""
    git.commit("first", sums=lock(), other=lock("other"))
    git.commit("gone", other=None)
    assert llmtune("compare", "HEAD~1", "--fail-on-drop")[0] == 1
    git.commit("without a score", sums=lock(metrics={}))
    assert llmtune("compare", "HEAD~1", "--fail-on-drop")[0] == 1
    git.commit("with a score again", sums=lock())
    git.commit("a score that is no number", sums=lock(metrics={"success_vote": Measured(float("nan"))}))
    assert llmtune("compare", "HEAD~1", "--fail-on-drop")[0] == 1


def test_a_relabelled_row_is_the_same_row(git: Git, llmtune: Run) -> None:
    """It asks the same and has another id: its outcome is compared."""
    git.commit("first", sums=lock(wrong=0, rows=3))
    rows = (*lock(wrong=0, rows=3).examples[:2], example(9, 0.0, asked="q2"))
    git.commit("second", sums=lock(wrong=1, rows=3, examples=rows))
    [suite] = json.loads(llmtune("compare", "HEAD~1", "--format=json")[1])["suites"]
    assert suite["rows"] == {"shared": 3, "added": 0, "removed": 0, "relabelled": 1}
    assert suite["lost"] == [f"{9:016x}"]


def test_merges_renames_and_detached_heads(git: Git, llmtune: Run) -> None:
    """A merge is one change; a moved file goes on; nothing needs a branch."""
    git.commit("first", sums=lock())
    git("checkout", "-q", "-b", "side")
    git.commit("on the side", other=lock("other"))
    git("checkout", "-q", "main")
    git.commit("meanwhile", sums=lock(wrong=1))
    git("merge", "-q", "--no-ff", "-m", "merged", "side")
    git("mv", "tests/llmtune/sums.lock.yaml", "tests/llmtune/adding.lock.yaml")
    git.commit("renamed")
    git("checkout", "-q", "--detach")
    git.commit("gone", other=None)
    code, out, _ = llmtune("history", "--format=json")
    entries = json.loads(out)["entries"]
    assert code == 0
    told = [(entry["subject"], entry["suite"], entry["model"]) for entry in entries]
    assert told == [
        ("first", "sums", "small"),
        ("meanwhile", "sums", "small"),
        ("merged", "other", "small"),
        ("renamed", "sums", "small"),
        ("gone", "other", "(removed)"),
    ]
    assert [entry["score"]["value"] for entry in entries[:2]] == [0.9, 0.95]
    assert len(json.loads(llmtune("history", "other", "--format=json")[1])["entries"]) == 2
    rows = list(csv.DictReader(io.StringIO(llmtune("history", "--format=csv")[1])))
    assert [row["suite"] for row in rows] == [entry["suite"] for entry in entries]
    assert llmtune("compare", "main~1", "main")[1].count("nothing") == 2


def test_a_lock_that_cannot_be_read_is_reported(git: Git, llmtune: Run) -> None:
    git.commit("first", sums=lock())
    (git.root / "tests/llmtune/sums.lock.yaml").write_text("<<<<<<< a\n")
    git.commit("broken")
    code, out, err = llmtune("compare", "HEAD~1", "HEAD")
    assert (code, out) == (2, "")
    assert "git conflict markers" in err
    assert "(cannot be read)" in llmtune("history")[1]


def test_a_shallow_clone_says_so(git: Git, llmtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = git.commit("first", sums=lock())
    git.commit("second", sums=lock(wrong=1))
    clone = ["git", "clone", "-q", "--depth=1", f"file://{git.root}", str(tmp_path / "shallow")]
    subprocess.run(clone, check=True)
    monkeypatch.chdir(tmp_path / "shallow")
    code, _, err = llmtune("compare", first)
    assert code == 2
    assert "git fetch --unshallow" in err
    code, out, err = llmtune("history")
    assert (code, out.count("sums")) == (0, 1)
    assert "git fetch --unshallow" in err


def test_without_git(llmtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    (outside / "llmtune").mkdir(parents=True)
    lock().write(outside / "llmtune" / "sums.lock.yaml")
    monkeypatch.chdir(outside)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert llmtune("show", "sums")[0] == 0
    code, _, err = llmtune("compare", "main")
    assert code == 2
    assert "is not in a git repository" in err
    monkeypatch.setenv("PATH", "")
    assert "git cannot be run" in llmtune("history")[2]


def test_an_option_in_a_revisions_place_runs_nothing(git: Git, llmtune: Run, tmp_path: Path) -> None:
    git.commit("first", sums=lock())
    code, _, err = llmtune("compare", "HEAD", "--", f"--output={tmp_path / 'x'}")
    assert code == 2
    assert "is not a revision" in err
    assert not (tmp_path / "x").exists()


def test_text_of_a_model_stays_text(git: Git, llmtune: Run) -> None:
    """Markdown, HTML and terminal escapes in answers, prompts and names come to nothing."""
    attack = "<script>alert(1)</script> @everyone [x](http://evil) | `rm` \x1b[31m"
    git.commit("first", sums=lock(wrong=0))
    rows = tuple(replace(one, voted_answer=attack, votes=((attack, 1),)) for one in lock(wrong=3).examples)
    git.commit("second", sums=lock(wrong=3, examples=rows, config={**CONFIG, "prompt": attack, "stop": attack}))
    comment = llmtune("compare", "HEAD~1", "--format=markdown")[1]
    assert comment.startswith("<!-- pytest-llmtune -->\n")
    assert "<script>" not in comment
    assert "@everyone" not in comment
    assert re.search(r"(?<!\\)\]\(", comment) is None
    assert "http://" not in comment
    page = llmtune("compare", "HEAD~1", "--format=html")[1]
    assert "<script>" not in page
    assert "\x1b" not in page + comment + llmtune("compare", "HEAD~1")[1]


def test_a_long_comment_is_cut_for_github(git: Git, llmtune: Run) -> None:
    suites = {f"suite{number}": lock(f"suite{number}") for number in range(200)}
    git.commit("first", **suites)
    long = {**CONFIG, "prompt": "word " * 400}
    git.commit("second", **{name: replace(one, config=long) for name, one in suites.items()})
    comment = llmtune("compare", "HEAD~1", "--format=markdown")[1]
    assert len(comment) < 65_536
    assert comment.endswith("see `llmtune compare`.\n")
    assert comment.count("| suite") == 201


def test_many_commits_are_read_at_once(git: Git, llmtune: Run) -> None:
    """One process of git for all blobs: the time does not lie in starting 300 of them."""
    for number in range(60):
        git.commit(f"change {number}", sums=lock(wrong=number % 7, cost=1e-5 * (number + 1)))
    entries = json.loads(llmtune("history", "--format=json")[1])["entries"]
    assert [entry["subject"] for entry in entries] == [f"change {number}" for number in range(60)]


def test_export_for_the_app(git: Git, llmtune: Run) -> None:
    """The module asks as the suite does, and runs nothing that a lock file could smuggle in."""
    evil = '"""\nraise SystemExit\n"""'
    git.commit("first", sums=replace(lock(), suite=evil))
    code, text, _ = llmtune("export", "tests/llmtune/sums.lock.yaml", "--to=python")
    assert code == 0
    module: dict[str, object] = {}
    exec(compile(text, "sums.py", "exec"), module)  # noqa: S102 - that it does nothing is the test
    asked = []

    class Client:
        class chat:  # noqa: N801
            class completions:  # noqa: N801
                @staticmethod
                def create(**parameters):
                    asked.append(parameters)
                    choice = type("Choice", (), {"message": type("Message", (), {"content": "4"})})
                    return type("Completion", (), {"choices": [choice] * 3})

    assert module["complete"](Client, {"question": "2+2"}) == ["4"] * 3  # type: ignore[operator]
    assert asked == [
        {
            "messages": [{"role": "user", "content": "Answer briefly: 2+2"}],
            "model": "small",
            "temperature": 0.5,
            "n": 3,
        }
    ]
    data = json.loads(llmtune("export", evil, "--to=json")[1])
    assert data["config"] == CONFIG


def test_only_suites_of_the_same_name_are_listed(git: Git, llmtune: Run) -> None:
    git.commit("first", sums=lock(), copy=lock(), other=replace(lock(), suite="other"))
    code, _, told = llmtune("export", "sums", "--to=json")
    assert code == 2
    assert "name the file: tests/llmtune/copy.lock.yaml, tests/llmtune/sums.lock.yaml" in told
    assert "other" not in told


def test_show_grade_and_schema(git: Git, llmtune: Run) -> None:
    git.commit("first", sums=lock())
    code, out, _ = llmtune("show", "sums")
    assert code == 0
    for said in (
        "model: small",
        "Answer briefly: {question}",
        "success_vote: 0.9",
        "inference_cost: $0.05 per 1,000 instances",
        "row 0: 5",
    ):
        assert said in out
    code, _, err = llmtune("compare", "nosuch")
    assert (code, "'nosuch' is not a commit of" in err, "git log --oneline --all" in err) == (2, True, True)
    code, _, err = llmtune("show", "sum")
    assert code == 2
    assert "did you mean 'sums'" in err
    assert llmtune("grade", "exact", "4", "--row", '{"answer": "4"}')[0] == 0
    assert llmtune("grade", "exact", "5", "--row", '{"answer": "4"}')[0] == 1
    code, _, err = llmtune("grade", "exact", "5", "--row", "{")
    assert (code, "no JSON" in err) == (2, True)
    assert json.loads(llmtune("schema")[1])["type"] == "object"


@pytest.mark.parametrize("prompt", [{}, {"prompt": "Answer {question}"}])
def test_a_task_is_no_prompt(git: Git, llmtune: Run, prompt: dict[str, str]) -> None:
    """Its function is the app's: no module of ours could call it, even if it takes a prompt."""
    config = {"model": "small", "style": "kind", "task": "desk:handle", **prompt}
    git.commit("first", sums=replace(lock(), config=config))
    code, out, err = llmtune("export", "sums", "--to=python")
    assert (code, out) == (2, "")
    assert "its unit is the task desk:handle; read its configuration: llmtune export sums --to=json" in err
    assert json.loads(llmtune("export", "sums", "--to=json")[1])["config"] == config
    assert ("\nprompt\n" in llmtune("show", "sums")[1]) is bool(prompt)


def test_show_names_the_search(git: Git, llmtune: Run) -> None:
    """How many trials, what they cost, and why it ended; a baseline without a cost has no line of it."""
    measured = lock()
    trial = TrialSummary(1, CONFIG, Measured(0.9), Decimal("0.00005"), Decimal("0.1"), "done")
    study = StudySummary((trial, replace(trial, number=2)), Decimal("0.25"), "num_samples")
    metrics = {name: value for name, value in measured.metrics.items() if name != "inference_cost"}
    git.commit("first", sums=replace(measured, study=study, metrics=metrics))
    out = llmtune("show", "sums")[1]
    assert "search: 2 trials, $0.25 spent, ended by num_samples" in out
    assert "per 1,000" not in out


def test_what_grade_refuses(llmtune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is no mapping; an answer may come from standard input, and one that cannot be read is wrong."""
    code, _, err = llmtune("grade", "exact", "4", "--row", "[4]")
    assert (code, "--row takes a JSON object" in err) == (2, True)
    code, _, err = llmtune("grade", "{exact", "4", "--row", "{}")
    assert (code, "no JSON" in err) == (2, True)
    monkeypatch.setattr("sys.stdin", io.StringIO("4"))
    code, out, _ = llmtune("grade", '{"exact": {}}', "-", "--row", '{"answer": "4"}')
    assert (code, "voted answer: 4" in out) == (0, True)
    code, out, _ = llmtune("grade", "math", "no number", "--row", '{"answer": "4"}')
    assert (code, "voted answer" in out) == (1, False)


def test_init_runs_pytest(git: Git, llmtune: Run) -> None:
    """Which finds the project; its exit code is that of the command."""
    code, _, err = llmtune("init")
    assert (code, "llmtune init --demo" in err) == (2, True)
    code, _, err = llmtune("init", "--demo", "shop")
    assert (code, "--demo takes no name and no file" in err) == (2, True)
    assert llmtune("init", "--demo")[0] == 0
    assert (git.root / "demo").is_dir()
    assert llmtune("init", "sums", "missing.jsonl")[0] not in {0, 1}


def test_outside_of_a_repository_the_directory_is_what_is_compared(
    llmtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a file of results; a revision is an error that says so."""
    bare = tmp_path / "bare"
    bare.mkdir()
    monkeypatch.chdir(bare)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    results_file.write(bare / "old.json", [results.report(results.evaluation([results.result(0, 1.0)]))])
    code, out, _ = llmtune("compare", "old.json", "--format=json")
    assert code == 0
    assert [suite["status"] for suite in json.loads(out)["suites"]] == ["removed"]
    assert llmtune("compare", "HEAD")[0] == 2


def test_two_results_files_with_two_suites_of_one_file(git: Git, llmtune: Run) -> None:
    """Each suite is compared with itself, and a row with a new label is the same row."""
    old = [results.result(0, 1.0, row={"problem": "1+1", "answer": "2"}), results.result(1, 1.0)]
    relabelled = results.result(2, 0.0, row={"problem": "1+1", "answer": "3"})
    for name, rows in (("old.json", old), ("new.json", [relabelled, old[1]])):
        changed = results.report(results.evaluation(rows))
        same = results.report(results.evaluation(old), name="other")
        results_file.write(git.root / name, [changed, same])
    code, out, _ = llmtune("compare", "old.json", "new.json", "--format=json")
    suites = {suite["suite"]: suite for suite in json.loads(out)["suites"]}
    assert code == 0
    assert {name: suite["status"] for name, suite in suites.items()} == {"algebra": "changed", "other": "same"}
    assert suites["algebra"]["rows"] == {"shared": 2, "added": 0, "removed": 0, "relabelled": 1}
    assert len(suites["algebra"]["lost"]) == 1


def test_messages_are_compared_word_by_word(git: Git, llmtune: Run) -> None:
    """Roles and contents as lines; a content in parts is shown as JSON, and what is no message as it is."""
    parts = [{"type": "text", "text": "{question}"}]
    config = {name: value for name, value in CONFIG.items() if name != "prompt"}
    for word in ("brief", "kind"):
        messages = [{"role": "system", "content": f"Be {word}."}, {"role": "user", "content": parts}, "end"]
        git.commit(word, sums=lock(config=config | {"messages": messages}))
    out = llmtune("compare", "HEAD~1")[1]
    assert "system: Be [-brief-]{+kind+}." in out
    assert '    user: [{"type": "text", "text": "{question}"}]' in out
    assert "    end" in out
    git.commit("words", sums=lock(config=config | {"messages": "a.jinja"}))
    git.commit("nothing", sums=lock(config=config))
    assert "[-a.jinja-]" in llmtune("compare", "HEAD~1")[1]


def test_suites_of_one_name_in_two_projects_are_two(git: Git, llmtune: Run) -> None:
    """The second is called by its directory, and each is compared with itself."""
    git.commit("one", sums=lock())
    other = git.root / "other" / "llmtune"
    other.mkdir(parents=True)
    lock(wrong=5).write(other / "sums.lock.yaml")
    git("add", "-A")
    git("commit", "-qm", "two")
    suites = json.loads(llmtune("compare", "HEAD", "--format=json")[1])["suites"]
    assert [(suite["suite"], suite["status"]) for suite in suites] == [("sums", "same"), ("tests/llmtune/sums", "same")]


def test_a_new_suite_of_the_same_name_hides_no_drop(git: Git, llmtune: Run) -> None:
    """Its path comes first, but a suite goes on where it was; one that moved is found by its name, two of a name are not guessed."""
    git.commit("one", sums=lock())

    def written(directory: str, wrong: int) -> None:
        path = git.root / directory / "llmtune" / "sums.lock.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock(wrong=wrong).write(path)

    written("another", 0)
    written("tests", 9)
    code, out, _ = llmtune("compare", "HEAD", "--format=json", "--fail-on-drop")
    found = [(suite["suite"], suite["status"]) for suite in json.loads(out)["suites"]]
    assert (code, found) == (1, [("sums", "added"), ("tests/llmtune/sums", "changed")])
    git("add", "-A")
    git("commit", "-qm", "two")
    git("mv", "tests", "moved")
    assert llmtune("compare", "HEAD", "--fail-on-drop")[0] == 0
    git("mv", "another", "zoo")
    code, out, _ = llmtune("compare", "HEAD", "--format=json", "--fail-on-drop")
    assert code == 1
    assert {suite["status"] for suite in json.loads(out)["suites"]} == {"added", "removed"}


@pytest.mark.parametrize("subject", ["a \x01 b", "\x01\x02\x03", ":1 2 3 4 R", "\x1b[31mred"])
def test_no_subject_of_a_commit_is_taken_for_the_format(git: Git, llmtune: Run, subject: str) -> None:
    """Control characters in it neither end the command nor make a commit of their own."""
    git.commit("first", sums=lock())
    git.commit(subject, sums=lock(wrong=5))
    code, out, err = llmtune("history", "--format=json")
    assert (code, err) == (0, "")
    assert [entry["subject"] for entry in json.loads(out)["entries"]] == ["first", subject]
    assert llmtune("history")[0] == 0


def test_what_the_terminal_cannot_show_is_no_answer(
    git: Git, llmtune: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path that is not UTF-8 is escaped; an output that is not is an error with the way out, not exit code 1."""
    lock().write(git.root / os.fsdecode(b"b\xe4d") / "sums.lock.yaml")
    git.commit("first")
    code, out, _ = llmtune("history", "--format=json")
    assert (code, json.loads(out)["entries"][0]["path"]) == (0, "b\udce4d/sums.lock.yaml")
    git.commit("ä", sums=lock(wrong=5))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["history"]) == 2
    assert "PYTHONUTF8=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("log.showRoot", "false"),
        ("log.diffMerges", "combined"),
        ("log.showSignature", "true"),
        ("color.ui", "always"),
        ("i18n.logOutputEncoding", "latin1"),
    ],
)
def test_the_users_settings_of_git_change_no_history(git: Git, llmtune: Run, setting: str, value: str) -> None:
    """The first commit, and a merge, are in it whatever git log shows by default."""
    git.commit("first", sums=lock())
    git("checkout", "-qb", "branch")
    git.commit("änderung", sums=lock(wrong=5))
    git("checkout", "-q", "-")
    git("merge", "-q", "--no-ff", "-m", "mérge", "branch")
    git("config", setting, value)
    code, out, err = llmtune("history", "--format=json")
    assert (code, err) == (0, "")
    assert [entry["subject"] for entry in json.loads(out)["entries"]] == ["first", "mérge"]


def test_results_without_an_evaluation_are_not_compared(git: Git, llmtune: Run) -> None:
    """Nothing was measured, which is no score of zero."""
    results_file.write(git.root / "old.json", [results.report(None, stale=[Stale("no recording", "--llm-tune")])])
    code, _, err = llmtune("compare", "old.json")
    assert code == 2
    assert "old.json: the suite algebra has no evaluation (stale)" in err
