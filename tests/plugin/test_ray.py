"""``--llm-engine=ray`` end to end, on a real cluster of two nodes: the same files as without it, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.llm_server import refused_url

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project
    from support.ray_cluster import RayCluster

pytestmark = pytest.mark.filterwarnings(  # of the processes that ray.cluster_utils started, and a test killed
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def files(project: Project) -> tuple[str, str]:
    """Lock file and recording, without the seconds that each answer took."""
    recording = (project.pytester.path / "llmtune" / "sums.cassette.json").read_text(encoding="utf-8")
    return project.lock, re.sub(r'"latency":[\d.]+', "", recording)


def forget(project: Project) -> None:
    """As if nothing had been searched yet."""
    for name in ("llmtune", ".llmtune"):
        shutil.rmtree(project.pytester.path / name)


def asked_on(cluster: RayCluster) -> str:
    return f"--llm-engine=ray://{cluster.address}"


@pytest.mark.slow
def test_a_search_gives_the_same_files(project: Project, cluster: RayCluster) -> None:
    """Lock file, baseline and recording, to the byte; and all of it in the one cache: once more costs nothing."""
    project.run("--llm-tune").assert_outcomes(passed=1)
    here = files(project)
    forget(project)
    before = project.server.count
    project.run("--llm-tune", asked_on(cluster)).assert_outcomes(passed=1)
    assert project.server.count > before + 100
    assert files(project) == here
    before = project.server.count
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert project.server.count == before
    assert files(project) == here


@pytest.mark.slow
def test_replay_grades_on_the_cluster(project: Project, cluster: RayCluster, tmp_path: Path) -> None:
    """A grader of the project's own, with its helper module, which no node can import; no request is sent."""
    log = tmp_path / "graded"
    path = project.pytester.path
    (path / "helper.py").write_text(
        "import os, re\n\ndef last(text):\n    return ''.join(re.findall(r'\\d+', text)[-1:])\n"
    )
    (path / "graders.py").write_text(
        "import os\nimport helper\n\n"
        "def right(responses, answer, **_):\n"
        f"    with open({str(log)!r}, 'a') as file:\n        print(os.getpid(), file=file)\n"
        "    return {'success_vote': float(helper.last(responses[0]) == answer)}\n"
    )
    project.write_suite()
    text = (path / "test_sums.py").read_text()
    (path / "test_sums.py").write_text("import graders\n" + text.replace('grader="numeric"', "grader=graders.right"))
    project.run("--llm-tune", "-p", "no:randomly").assert_outcomes(passed=1)
    log.unlink()
    before = project.server.count
    project.run(asked_on(cluster)).assert_outcomes(passed=1)
    assert project.server.count == before
    graded = log.read_text().split()
    elsewhere = [pid for pid in graded if int(pid) != os.getpid()]
    assert len(elsewhere) == 18  # every test row; the check of the grader before it is done here


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["--llm-live", "--llm-record=all"])
def test_a_run_keeps_its_dollars(tuned: Project, cluster: RayCluster, mode: str) -> None:
    """The same verdict for the same dollars; ``--llm-max-spend`` holds on all nodes together."""
    spent = {}
    for engine in ("--llm-engine=local", asked_on(cluster)):
        tuned.run(mode, engine, "--llm-json=results.json").assert_outcomes(passed=1)
        found = json.loads((tuned.pytester.path / "results.json").read_text())["suites"][0]
        spent[engine] = found["spent"], found["verdict"]["value"], found["evaluation"]["inference_cost"]
    assert len(set(spent.values())) == 1
    before = tuned.server.billed
    result = tuned.run(mode, asked_on(cluster), "--llm-max-spend=0.0001")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*--llm-max-spend*of $0.0001 is spent*"])
    assert (tuned.server.billed - before) * 2e-6 <= 0.0001


@pytest.mark.slow
def test_a_node_is_lost_in_a_search(project: Project, cluster: RayCluster) -> None:
    """Its power is cut in the middle: the same lock file and recording as undisturbed."""
    project.run("--llm-tune").assert_outcomes(passed=1)
    here, before = files(project), project.server.count
    forget(project)
    project.server.latency = 0.3
    with cluster.one_more() as node:

        def cut() -> None:
            project.server.until(lambda: project.server.count > before + 80 and project.server.in_flight > 8)
            cluster.kill(node)

        thread = threading.Thread(target=cut)
        thread.start()
        result = project.run("--llm-tune", "--llm-concurrency=12", asked_on(cluster))
        thread.join()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*a machine of the cluster was lost*"])
    assert files(project) == here


@pytest.mark.slow
def test_a_judge_asks_on_the_cluster(project: Project, cluster: RayCluster) -> None:
    """What a judge asks goes through the one cache and the one budget."""
    project.server.answer = lambda body: "verdict: pass" if "rubric" in str(body).lower() else "The answer is 4."
    path = project.pytester.path / "test_sums.py"
    judge = 'grader={"judge": {"model": "good", "rubric": "says a number"}}'
    path.write_text(path.read_text().replace('grader="numeric"', judge).replace("num_samples=6", "num_samples=2"))
    project.run("--llm-tune", asked_on(cluster)).assert_outcomes(passed=1)
    before = project.server.count
    project.run().assert_outcomes(passed=1)
    assert project.server.count == before


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_so_far(project: Project, cluster: RayCluster) -> None:
    """As without a cluster: the search ends, says so, and leaves no task behind."""
    project.server.latency = 0.2
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--llm-tune", asked_on(cluster)]
    process = subprocess.Popen(
        command,
        cwd=project.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    try:
        project.server.until(lambda: project.server.count > 80)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "interrupted" in output
    project.server.until(lambda: not project.server.in_flight)
    count = project.server.count
    cluster.until_idle()
    assert project.server.count == count


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--llm-engine=dask"], "*--llm-engine is 'dask'; valid: local, ray, ray://HOST:PORT*"),
        (["--llm-engine=ray://"], "*--llm-engine is 'ray://'; valid:*"),
        (["--llm-engine=ray", "-n2"], "*--llm-engine=ray and -n cannot be combined*"),
        (["--llm-engine=ray", "--llm-batch", "--llm-live"], "*--llm-engine=ray and --llm-batch cannot be combined*"),
    ],
)
def test_usage(tuned: Project, args: list[str], complaint: str) -> None:
    result = tuned.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([complaint])


def test_without_ray(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said, before anything is run."""
    monkeypatch.setitem(sys.modules, "ray", None)
    result = tuned.run("--llm-live", "--llm-engine=ray")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["*needs the extra 'ray': pip install 'pytest-llmtune?ray?'*"])


def test_without_a_cluster(tuned: Project) -> None:
    """No cluster at an address: said at once, with what starts one; nothing is asked."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    nowhere = refused_url().removeprefix("http://").removesuffix("/v1")
    result = tuned.pytester.runpytest_subprocess("--llm-live", f"--llm-engine=ray://{nowhere}", timeout=60)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["*no cluster could be joined*refused*ray start --head*"])
    assert tuned.server.count == 0
