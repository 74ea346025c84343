"""``*.llmtune.yaml``: documents, anchors, extends; places of mistakes; and nothing a stranger's file could do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.suite_files import read_suites
from support.suites import SUMS, refusal, write_jsonl

from pytest_llmtune._util.yaml import YamlError, documents
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import Choice, Constant, LogRandInt, RandInt, Uniform
from pytest_llmtune.suite.yaml import project_root

if TYPE_CHECKING:
    from pathlib import Path

BASE = "dataset: sums.jsonl\nmodel: m\ngrader: exact\nprompt: '{question}'\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with data; what lies beside it is none of its business."""
    root = tmp_path / "project"
    write_jsonl(root / "tests" / "sums.jsonl", SUMS)
    (root / "pyproject.toml").write_text("")
    (tmp_path / "outside.yaml").write_text(BASE)
    return root


def write(project: Path, text: str, name: str = "sums.llmtune.yaml") -> Path:
    path = project / "tests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(project: Path, text: str) -> list[Any]:
    return [suite for suite, _ in read_suites(write(project, text), shown_as="t.yaml")]


def complaint(project: Path, text: str) -> str:
    with pytest.raises(SuiteError) as caught:
        read(project, text)
    return str(caught.value)


def test_one_document(project: Path) -> None:
    """The file's name is the suite's; data are found beside the file."""
    [(suite, line)] = read_suites(write(project, f"# a comment\n\n{BASE}"))
    assert (suite.name, line) == ("sums", 3)
    assert suite.base_dir == project / "tests"
    assert suite.root == project
    assert suite.where_declared == f"{project / 'tests' / 'sums.llmtune.yaml'}:3 (sums)"
    assert len(suite.load().test) == 10


def test_every_kind_of_value(project: Path) -> None:
    """The words of the search space, thresholds and prices as in the marker."""
    [suite] = read(
        project,
        BASE
        + """
temperature: {uniform: [0, 2]}
max_tokens: {lograndint: [50, 1000]}
n: {randint: [1, 10]}
stop: [["\\n"], null]
reasoning_effort: [low, high]
extra_body:
  top_k: [10, 40]
response_format: {type: json_object}
inference_budget: 4e-3
optimization_budget: 1.0
min_success_vote: 0.85
prices:
  m: {input: 0.15, output: 0.60}
baselines:
  - {n: 2}
""",
    )
    parameters = suite.space.parameters
    assert parameters["temperature"] == Uniform(0, 2)
    assert parameters["max_tokens"] == LogRandInt(50, 1000)
    assert parameters["n"] == RandInt(1, 10)
    assert parameters["stop"] == Choice((["\n"], None))
    assert parameters["reasoning_effort"] == Choice(("low", "high"))
    assert parameters["top_k"] == Choice((10, 40))
    assert parameters["response_format"] == Constant({"type": "json_object"})
    assert str(suite.inference_budget) == "0.004"
    assert suite.baselines[0].n == 2


def test_several_documents(project: Path) -> None:
    """Each with a name; empty ones are passed over."""
    found = read_suites(write(project, f"---\n---\nname: a\n{BASE}---\n{BASE}name: b\n---\n"))
    assert [(suite.name, line) for suite, line in found] == [("a", 3), ("b", 9)]


def test_anchors_and_merges(project: Path) -> None:
    """Shared parts within a document; keys that begin with x- are a place for them."""
    [suite] = read(
        project,
        BASE.replace(
            "model: m", "x-base: &base {temperature: 0, n: 1}\nx-more: &more {n: 2, max_tokens: 5}\n<<: [*base, *more]"
        )
        + "model: [a, {model: b, <<: *more}, {model: c, <<: *more, n: 3}]\n",
    )
    assert suite.space.parameters["n"] == Constant(1)
    assert suite.space.for_model("b")["n"] == Constant(2)
    assert suite.space.for_model("c")["n"] == Constant(3)
    assert suite.space.parameters["max_tokens"] == Constant(5)


def test_plain_words_are_yaml_1_2(project: Path) -> None:
    """Labels such as no and on stay texts, 1e-3 is a number, dates and octals have no magic."""
    [document] = documents(
        "[no, yes, on, true, True, null, ~, 1e-3, 010, 2024-01-01, 1:30, +5, .5, '5', =, 0x1F, .inf, 1_000]"
    )
    assert document.data == [
        *("no", "yes", "on", True, True, None, None, 0.001, 10, "2024-01-01", "1:30", 5, 0.5, "5", "=", "0x1F", ".inf"),
        "1_000",
    ]
    [suite] = read(project, BASE.replace("exact", "{choice: {labels: [yes, no]}}"))
    assert suite.grader == {"choice": {"labels": ["yes", "no"]}}


def test_extends(project: Path) -> None:
    """Keys of the other file, replaced whole by one's own; data are found beside the file that names them."""
    write_jsonl(project / "shared" / "data" / "all.jsonl", SUMS)
    (project / "shared" / "base.yaml").write_text(
        "name: shared\ndataset: data/all.jsonl\nmodel: [a, b]\n"
        "prices:\n  a: {input: 1, output: 1}\n  b: {input: 2, output: 2}\n"
    )
    (project / "shared" / "more.yaml").write_text("extends: base.yaml\nn: [1, 2]\nseed: 3\n")
    [suite] = read(
        project,
        "extends: ../shared/more.yaml\nprompt: '{question}'\ngrader: exact\n"
        "prices: {a: {input: 5, output: 5}}\nseed: 4\n",
    )
    assert suite.name == "sums"
    assert suite.space.models == ("a", "b")
    assert (suite.seed, suite.space.parameters["n"]) == (4, Choice((1, 2)))
    assert suite.prices.keys() == {"a"}
    assert suite.dataset == "../shared/data/all.jsonl"
    assert len(suite.load().test) == 10


def test_extends_several(project: Path) -> None:
    """Later files win over earlier ones, the document over all."""
    write(project, "seed: 1\nmodel: a\n", "one.yaml")
    write(project, "seed: 2\ngrader: math\n", "two.yaml")
    [suite] = read(project, "extends: [one.yaml, two.yaml]\ndataset: sums.jsonl\nprompt: '{question}'\ngrader: exact\n")
    assert (suite.seed, suite.space.models, suite.grader) == (2, ("a",), "exact")


def test_a_mistake_in_an_extended_file_is_placed_there(project: Path) -> None:
    """With that file's line and column; what is overridden is no mistake."""
    write(project, "model: m\nseed: -1\ntemperature: 9\n", "base.yaml")
    said = complaint(
        project, "extends: base.yaml\ndataset: sums.jsonl\nprompt: '{question}'\ngrader: exact\ntemperature: 1\n"
    )
    assert said == "base.yaml:2:1: seed is -1; valid: a seed, a whole number from 0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: nowhere.yaml\n", "t.yaml:1:1: extends 'nowhere.yaml': no file"),
        ("extends: ../../outside.yaml\n", "t.yaml:1:1: extends '../../outside.yaml' is outside the project"),
        ("extends: /etc/passwd\n", "t.yaml:1:1: extends '/etc/passwd' is outside the project"),
        ("name: x\nextends: 5\n", "t.yaml:2:1: extends is 5; valid: another YAML file"),
        ("extends: [5]\n", "t.yaml:1:1: extends is 5; valid"),
        ("extends: {a: b}\n", "t.yaml:1:1: extends is {'a': 'b'}; valid"),
        ("extends: sums.llmtune.yaml\n", "extends this file: a cycle"),
        ("extends: two.yaml\n", "t.yaml:1:1: extends 'two.yaml', which has 2 documents ('a', 'b'); it must have one"),
        ("extends: none.yaml\n", "which has 0 documents (none); it must have one"),
        ("extends: broken.yaml\n", "broken.yaml:2:1: while parsing a flow node"),
        ("extends: list.yaml\n", "list.yaml:1:1: a suite is a mapping of keys, got [1]"),
        ("extends: circle.yaml\n", "circle.yaml:1:1: extends 'sums.llmtune.yaml', which extends this file: a cycle"),
        ("extends: tests\n", "no file"),
    ],
)
def test_wrong_extends(project: Path, text: str, said: str) -> None:
    """Each with the place of the word that is wrong."""
    write(project, "name: a\n---\nname: b\n", "two.yaml")
    write(project, "# nothing\n", "none.yaml")
    write(project, "a: [\n", "broken.yaml")
    write(project, "[1]\n", "list.yaml")
    write(project, "extends: sums.llmtune.yaml\n", "circle.yaml")
    if text == "extends: sums.llmtune.yaml\n":
        said = "extends 'sums.llmtune.yaml', which extends this file: a cycle"
    assert said in complaint(project, text)


def test_a_long_chain_of_extends(project: Path) -> None:
    """It ends somewhere."""
    for number in range(20):
        write(project, f"extends: {number + 1}.yaml\n", f"{number}.yaml")
    assert "more than the limit of 10 files in a chain" in complaint(project, "extends: 0.yaml\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "modle: x\n", "t.yaml:5:1: modle: unknown key (did you mean 'model'?); valid: name,"),
        (BASE + "seed:   -1\n", "t.yaml:5:1: seed is -1; valid"),
        (
            BASE.replace("m\n", "[a, {model: b, temprature: 1}]\n", 1),
            "t.yaml:2:23: model[1].temprature: unknown parameter (did you mean 'temperature'?)",
        ),
        (
            BASE + "prices:\n  m:\n    input: 1\n    output: free\n",
            "t.yaml:8:5: prices.m.output is 'free'; valid: USD per 1M tokens",
        ),
        (
            BASE + "group_by: answer\nmin_success: {'1': 0.5, '2': 50}\n",
            "t.yaml:6:25: min_success.2 is 50 (did you mean 0.5?)",
        ),
        (
            BASE.replace("prompt: '{question}'", "messages:\n- {role: usr, content: hi}"),
            "t.yaml:5:4: messages[0].role is 'usr' (did you mean 'user'?)",
        ),
        (BASE.replace("sums.jsonl", "sum.jsonl"), "t.yaml:1:1: dataset: no file"),
        (BASE.replace("'{question}'", "['{question}', '{a.b}']"), "t.yaml:4:24: prompt[1]: the field {a.b} reaches"),
        (BASE.replace("model: m\n", ""), "t.yaml:1 (sums): model is missing"),
        ("name: 5\n" + BASE, "t.yaml:1:1: name is 5; valid: a text"),
        ("[1, 2]\n", "t.yaml:1:1: a suite is a mapping of keys, got [1, 2]"),
        ("just text\n", "t.yaml:1:1: a suite is a mapping of keys, got 'just text'"),
        ("", "t.yaml:1:1: has no suite"),
        ("# only a comment\n", "t.yaml:1:1: has no suite"),
        (f"{BASE}---\n{BASE}", "t.yaml:1:1: a document among several needs a name, as in `name: algebra`"),
        (f"name: a\n{BASE}---\nname: a\n{BASE}", "t.yaml:7:1: the suite 'a' is also declared on line 1"),
        (BASE + "seed: 1\nseed: 2\n", "t.yaml:6:1: duplicate key 'seed'"),
        (BASE + "prices: {m: {input: 1, input: 2}}\n", "t.yaml:5:24: duplicate key 'input'"),
        (BASE + "? [a]\n: 1\n", "t.yaml:5:3: a key is not a string"),
        (BASE + "prompt: [\n", "t.yaml:6:1: while parsing a flow node"),
        (BASE + "  seed: 1\n", "t.yaml:5:3: while parsing a block mapping expected <block end>"),
        (BASE + "\tseed: 1\n", "t.yaml:5:1: while scanning for the next token"),
        ("a: \x07\n", "t.yaml:1:1: the character #x07 is not allowed"),
        (BASE + "seed: *nowhere\n", "t.yaml:5:7: found undefined alias 'nowhere'"),
        (
            BASE + "seed: !!python/object/apply:os.getcwd []\n",
            "t.yaml:5:7: the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
        (BASE + "seed: !env HOME\n", "t.yaml:5:7: the tag '!env' is not allowed"),
        (BASE + "seed: !!int five\n", "t.yaml:5:7: invalid literal for int()"),
        (BASE + "seed: !!set {a}\n", "t.yaml:5:7: the tag 'tag:yaml.org,2002:set' is not allowed"),
        (BASE + "<<: 5\n", "expected a mapping or list of mappings for merging"),
        (BASE + f"seed: {'9' * 5000}\n", "t.yaml:5:7: "),
    ],
)
def test_places_of_mistakes(project: Path, text: str, said: str) -> None:
    """File, line and column, from 1, and did-you-mean; never a traceback."""
    assert complaint(project, text).startswith(said) or said in complaint(project, text).split("\n")[0]


def test_all_documents_are_complained_of(project: Path) -> None:
    """A mistake in one does not hide those of another."""
    said = complaint(project, f"name: a\n{BASE}seed: -1\n---\nname: b\n{BASE}n: 0\n---\nname: c\n{BASE}")
    assert [line.partition(" is ")[0] for line in said.split("\n")] == ["t.yaml:6:1: seed", "t.yaml:13:1: n"]


def test_load_errors_have_the_place_of_the_dataset(project: Path) -> None:
    """What is wrong with the data leads to the line that names them."""
    [suite] = read(project, BASE.replace("{question}", "{qestion}"))
    with pytest.raises(SuiteError, match=r"^t.yaml:1:1: the prompt '\{qestion\}' names"):
        suite.load()
    assert (suite.at("model"), suite.at("seed")) == ("t.yaml:2:1", "t.yaml:1 (sums)")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("dataset: ../../outside.yaml", "is outside the project"),
        ("dataset: /etc/*.json", "is outside the project"),
        ("dataset: os:getcwd", "the module 'os' is outside the project"),
        ("dataset: hf:../../elsewhere", "is outside the project"),
    ],
)
def test_a_strangers_suite_reads_and_runs_nothing_outside(project: Path, declared: str, said: str) -> None:
    """Data, code and other YAML are those of the project."""
    (project.parent / "elsewhere").mkdir()
    with pytest.raises(SuiteError) as caught:
        read(project, BASE.replace("dataset: sums.jsonl", declared))[0].load()
    assert said in str(caught.value) or "needs the library datasets" in str(caught.value)


@pytest.mark.parametrize("key", ["prompt: {callable: 'os:getcwd'}", "aggregate: 'os:getcwd'\nprompt: '{question}'"])
def test_code_outside_of_the_project_is_not_even_imported(project: Path, key: str) -> None:
    """For prompts and aggregates it is said at once."""
    assert "the module 'os' is outside the project" in complaint(project, BASE.replace("prompt: '{question}'", key))


def test_code_of_the_project(project: Path) -> None:
    """Functions beside the suite are found."""
    (project / "tests" / "my_prompts.py").write_text("def terse(row):\n    return row['question'] + '='\n")
    [suite] = read(project, BASE.replace("'{question}'", "[{callable: 'my_prompts:terse'}, '{question}']"))
    assert suite.space.templates[0].render({"question": "1"})[0]["content"] == "1="
    assert suite.space.templates[0].to_lock() == {"callable": "my_prompts:terse"}


def test_alias_bombs(project: Path) -> None:
    """Nine lines that stand for billions of values are refused at once."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    started = time.process_time()
    assert "more than the limit of 200,000 values, aliases counted" in complaint(project, "\n".join(lines))
    assert time.process_time() - started < 1


def test_merge_bombs(project: Path) -> None:
    """Merges of merges are counted as well."""
    lines = ["a: &a {" + ", ".join(f"k{number}: 1" for number in range(20)) + "}"]
    lines += [
        f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    ]
    assert "more than the limit of 200,000 values" in complaint(project, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]\n", "an alias inside its own anchor"),
        ("a: &a {b: *a}\n", "an alias inside its own anchor"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("- " * 100_000, ""),
        ("---\n[]\n" * 1001, "more than the limit of 1,000 documents"),
        ("x: " + "a" * 4_000_001, "larger than the limit of 4,000,000 bytes"),
    ],
)
def test_other_bombs(project: Path, text: str, said: str) -> None:
    """Depth, size and number have limits."""
    assert said in complaint(project, text)


def test_files_that_cannot_be_read(project: Path) -> None:
    """Absent, a directory, another encoding."""
    path = write(project, "")
    path.write_bytes("name: 이름\nx: 값\n".encode("cp949"))
    with pytest.raises(SuiteError, match=r"t.yaml:1:1: byte 0xc0 is not UTF-8"):
        read_suites(path, shown_as="t.yaml")
    with pytest.raises(SuiteError, match="cannot be read: No such file"):
        read_suites(project / "absent.llmtune.yaml")
    with pytest.raises(SuiteError, match="cannot be read: Is a directory"):
        read_suites(project)


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_byte_order_mark_and_windows_line_ends(project: Path, change: Any) -> None:
    """A checkout on Windows reads the same."""
    path = write(project, "")
    path.write_bytes(change(BASE).encode())
    [(suite, line)] = read_suites(path)
    assert (suite.name, line, suite.space.models) == ("sums", 1, ("m",))


def test_a_file_whose_name_is_no_name(project: Path) -> None:
    """Then the document must give one."""
    path = write(project, BASE, "con.llmtune.yaml")
    with pytest.raises(SuiteError, match="needs a name"):
        read_suites(path)


def test_project_root(tmp_path: Path) -> None:
    """The nearest directory that looks like one, else the file's own."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "a" / "pytest.ini").write_text("")
    assert project_root(deep / "x.yaml") == tmp_path / "a"


def test_places_of_nested_values() -> None:
    """Every value's line and column by its path; in a mapping that of the key."""
    [document] = documents("a: 1\nb:\n  - c: x\n    d: [1, 2]\n")
    assert document.positions == {
        "": (1, 1),
        "a": (1, 1),
        "b": (2, 1),
        "b[0]": (3, 5),
        "b[0].c": (3, 5),
        "b[0].d": (4, 5),
        "b[0].d[0]": (4, 9),
        "b[0].d[1]": (4, 12),
    }


SOUP = st.text(alphabet="abn:-[]{}&*!|>'\"#%@,?~ \n\t<1.e", max_size=80)


@given(SOUP)
def test_any_text_is_documents_or_refused(text: str) -> None:
    """No file makes anything but data or our own error with a place in it."""
    try:
        found = documents(text)
    except YamlError as problem:
        line, column = problem.line, problem.column
    else:
        line, column = 1, 1
        assert all(document.data is not None for document in found)
    assert 1 <= line <= text.count("\n") + 2
    assert column >= 1


@given(text=st.sampled_from([BASE, f"name: a\n{BASE}"]), cut=st.integers(0, 80), soup=SOUP)
def test_any_change_of_a_suite_is_a_suite_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, cut: int, soup: str
) -> None:
    """Cut anywhere and with anything put in: our own error or a suite."""
    path = tmp_path_factory.getbasetemp() / "fuzz.llmtune.yaml"
    write_jsonl(path.parent / "sums.jsonl", SUMS)
    path.write_text(text[:cut] + soup + text[cut:], encoding="utf-8")
    suites: list[Any] = []
    said = refusal(lambda: suites.extend(read_suites(path)))
    assert said or suites
