"""What a model thinks is not its answer: one step before every grader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graders import shared

from pytest_llmtune import Suite
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve
from pytest_llmtune.grading.code.extract import code_in
from pytest_llmtune.grading.reasoning import BUILT_IN, marks_of
from pytest_llmtune.types import Choice, Completion, CompletionRequest, Exchange, Usage

SHAPES = {
    "tags": "<think>\n{thought}\n</think>\n\n{answer}",
    "on one line": "<think>{thought}</think> {answer}",
    "the template has opened it": "{thought}\n</think>\n\n{answer}",
    "thinking": "<thinking>{thought}</thinking>{answer}",
    "thought": "<thought>\n{thought}\n</thought>\n{answer}",
    "reasoning and answer": "<reasoning>\n{thought}\n</reasoning>\n<answer>\n{answer}\n</answer>",
    "Magistral": "[THINK]{thought}[/THINK]{answer}",
    "Kimi-VL": "◁think▷{thought}◁/think▷{answer}",
    "Seed": "<seed:think>{thought}</seed:think>{answer}",
    "Cohere": "<|START_THINKING|>{thought}<|END_THINKING|><|START_RESPONSE|>{answer}<|END_RESPONSE|>",
    "OpenThinker": "<|begin_of_thought|>{thought}<|end_of_thought|><|begin_of_solution|>{answer}<|end_of_solution|>",
    "harmony": "<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant<|channel|>final<|message|>{answer}<|return|>",
    "harmony, begun in the template": "{thought}<|end|><|start|>assistant<|channel|>final<|message|>{answer}",
    "harmony without its special tokens": "analysis{thought}assistantfinal{answer}",
    "bars": "<|thinking|>{thought}<|/thinking|>{answer}",
    "twice": "<think>{thought}</think>\n<think>{thought}</think>\n{answer}",
    "a mark inside": "<think>I may use <think> here. {thought}</think>\n{answer}",
}
GRADERS: list[tuple[Any, Any, str, str]] = [
    ("exact", "Oslo", "Oslo", "Bern"),
    ("contains", "Oslo", "It is Oslo.", "It is Bern."),
    ({"regex": {"pattern": r"^(\d+)$"}}, "42", "42", "41"),
    ("numeric", "42", "The answer is 42.", "The answer is 41."),
    ("math", "42", r"\boxed{42}", r"\boxed{41}"),
    ({"choice": {"labels": ["A", "B", "C"]}}, "B", "The answer is B.", "The answer is C."),
    ("json", '{"a": 1}', '{"a": 1}', '{"a": 2}'),
    (lambda responses, answer: {"success_vote": float(responses[0] == answer)}, "Oslo", "Oslo", "Bern"),
]


def right(grader: Any, reference: Any, response: str, **options: Any) -> bool:
    made = resolve(grader, **options)
    given_alone = made.grade([response], {"answer": reference}).metrics["success_vote"] == 1
    under_asyncio = asyncio.run(made.agrade([response], {"answer": reference}, None))  # type: ignore[attr-defined]
    assert (under_asyncio.metrics["success_vote"] == 1) is given_alone
    return given_alone


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_only_the_answer_is_graded(shape: str) -> None:
    """A right answer after a wrong thought is right, a wrong one after a right thought is wrong; with every grader."""
    for grader, reference, good, bad in GRADERS:
        if "<answer>" in shape and callable(grader):
            continue  # a function sees the tags of the answer, for which it may look
        assert right(grader, reference, shape.format(thought=bad, answer=good)), (grader, shape)
        assert not right(grader, reference, shape.format(thought=good, answer=bad)), (grader, shape)


@pytest.mark.parametrize(
    "cut", ["<think>\n{}", "<thinking>{}", "[THINK]{}", "<|channel|>analysis<|message|>{}", "Well.\n<think>{}"]
)
def test_a_thought_that_is_never_closed_is_no_answer(cut: str) -> None:
    """It ended at max_tokens."""
    for grader, reference, good, _ in GRADERS:
        assert not right(grader, reference, cut.format(good)), grader


@pytest.mark.parametrize(
    "text",
    [
        "The tag `<think>` opens a thought, `</think>` closes it.",
        '{"html": "<think>x</think>"}',
        "analysis of variance",
        "<details>more</details> and 12",
        "```python\nopen = '<think>'\nclose = '</think>'\n```",
        "a < b and b > c, so [a, c]",
        "",
    ],
)
def test_talk_about_marks_is_no_thought(text: str) -> None:
    """In back-quotes, in a JSON document, in code, and where there is no mark at all."""
    assert BUILT_IN.answer(text) == text


def test_own_marks_replace_the_built_in_ones() -> None:
    """One pair or several; their text is no pattern."""
    plan = marks_of([{"open": "(*", "close": "*)"}, {"open": "<plan>", "close": "</plan>"}])
    assert plan.answer("(* 7? *) <plan>8</plan> 12") == "12"
    assert plan.answer("<think>7</think> 12") == "<think>7</think> 12"
    assert marks_of(False).answer("<think>7</think> 12") == "<think>7</think> 12"


@pytest.mark.parametrize(
    "spec", ["yes", 1, [], {"open": "<a>"}, {"open": "", "close": "x"}, [{"open": 1, "close": "x"}]]
)
def test_wrong_marks_are_refused(spec: Any) -> None:
    """In a suite's declaration, and by the grader."""
    with pytest.raises(SuiteError, match="reasoning"):
        resolve("exact", reasoning=spec)
    with pytest.raises(SuiteError, match="reasoning"):
        Suite(name="s", dataset=[{"q": "1", "answer": "2"}], prompt="{q}", model="m", grader="exact", reasoning=spec)


def test_fingerprints_tell_ways_to_read_reasoning_apart() -> None:
    """The default has the grader's own, so that lock files of suites without the key stay valid."""
    prints = [resolve("exact", reasoning=spec).fingerprint for spec in (True, False, {"open": "a", "close": "b"})]
    assert len(set(prints)) == 3


SUM = "```python\ndef add(a, b):\n    return a {} b\n```"
MORE: list[tuple[Any, dict[str, Any], str, str]] = [
    ({"similarity": {"threshold": 0.9}}, {"answer": "The cat sat."}, "The cat sat.", "A dog ran off."),
    (
        {"similarity": {"threshold": 0.9, "measure": "rouge_l"}},
        {"answer": "The cat sat."},
        "The cat sat.",
        "A dog ran off.",
    ),
    ({"similarity": {"threshold": 0.9, "model": "e"}}, {"answer": "The cat sat."}, "The cat sat.", "A dog ran off."),
    ({"judge": {"model": "j", "rubric": "It greets."}}, {"question": "Greet."}, "Hello", "Bye"),
]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_thought_changes_no_likeness_and_no_judge_sees_it(shape: str) -> None:
    """Nor is code run that was only thought of."""

    async def ask(request: CompletionRequest) -> Completion:
        if "input" in request.body:
            vector = [1, 0] if "cat" in request.body["input"] and "dog" not in request.body["input"] else [0, 1]
            response = {"data": [{"embedding": vector}]}
            return Completion((Choice("", "stop"),), Usage(1, 0), (Exchange("POST", "", request.body, response),))
        judged = str(request.body["messages"][-1]["content"]).split("<<<answer")[1]
        verdict = "pass" if "Hello" in judged and "Bye" not in judged else "fail"
        return Completion((Choice(f"Verdict: {verdict}", "stop"),), Usage(0, 0), ())

    for grader, row, good, bad in MORE:
        made = resolve(grader)
        for answer, other, expected in ((good, bad, 1.0), (bad, good, 0.0)):
            thoughtful = shape.format(thought=other, answer=answer)
            found = asyncio.run(made.agrade([thoughtful], row, ask))
            assert found.metrics["success_vote"] == expected, (grader, thoughtful)
    for sign, other in (("+", "-"), ("-", "+")):
        assert code_in(BUILT_IN.answer(shape.format(thought=SUM.format(other), answer=SUM.format(sign)))) == code_in(
            SUM.format(sign)
        )


FILLER = st.text("abc xyz.,!?\n", max_size=40)


@given(thought=FILLER, shape=st.sampled_from([shape for shape in SHAPES.values() if "assistantfinal" not in shape]))
def test_adding_a_thought_never_changes_a_verdict(thought: str, shape: str) -> None:
    """Of right and of wrong answers, whatever was thought."""
    for grader, reference, good, bad in GRADERS[:-1]:
        made = shared(grader)
        for answer in (good, bad):
            plain, thoughtful = (
                made.grade([answer], {"answer": reference}),
                made.grade([shape.format(thought=thought, answer=answer)], {"answer": reference}),
            )
            assert plain.metrics == thoughtful.metrics


STATED: list[tuple[Any, Any, str, str]] = [
    ("numeric", "42", "The answer is 42.", "The answer is 41."),
    ("math", "42", r"So it is \boxed{42}.", r"So it is \boxed{41}."),
    ({"choice": {"labels": ["A", "B", "C"]}}, "B", "The answer is B.", "The answer is C."),
    ({"choice": {"labels": ["good", "bad"]}}, "bad", "Answer: bad", "Answer: good"),
    ("json", '{"a": 1}', '```json\n{"a": 1}\n```', '```json\n{"a": 2}\n```'),
    ({"contains": {"whole_words": True}}, "Oslo", "It is Oslo.", "It is Bern."),
    ({"regex": {"pattern": r"is (\w+)\."}}, "Oslo", "It is Oslo.", "It is Bern."),
]
"""All built-in graders but `exact` and `similarity`, whose answer is the whole text, `judge`, which reads it, and those of runs."""


@given(
    heading=st.sampled_from(
        ["#### Solution", "#### 1. Add the two", "## Step 3", "#### Step 2: 7 + 5", "### Answer", "#### Final check"]
    ),
    remark=st.sampled_from(
        [
            "I hope this helps!",
            "Let me know if you have questions.",
            "See [docs] for more.",
            "References: [1]",
            "Have a nice day.",
        ]
    ),
    gap=st.sampled_from(["\n", "\n\n"]),
)
def test_headings_and_closing_remarks_never_change_a_verdict(heading: str, remark: str, gap: str) -> None:
    """Around right and around wrong answers."""
    for grader, reference, good, bad in STATED:
        made = shared(grader)
        for answer, expected in ((good, 1.0), (bad, 0.0)):
            text = f"{heading}{gap}{answer}{gap}{remark}"
            assert made.grade([text], {"answer": reference}).metrics["success_vote"] == expected, (grader, text)
    assert code_in(f"{heading}{gap}{SUM}{gap}{remark}") == code_in(SUM)
