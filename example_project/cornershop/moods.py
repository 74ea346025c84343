"""The locked cascade of the suite mood. Written by `llmtune export`; do not edit.

    answers = complete(client, row, read)  # an openai.OpenAI client; a mapping from column to value
"""

import json
import re
from collections import Counter

STEPS = [{'model': 'smollm2-135m-instruct',
  'temperature': 0.7,
  'stop': ['\n', '<|im_end|>'],
  'n': 8,
  'max_tokens': 10,
  'messages': [{'role': 'user', 'content': 'Message: The towels are soft and I love them.\nThe customer is'},
               {'role': 'assistant', 'content': 'positive'},
               {'role': 'user',
                'content': 'Message: The clock stopped after one day, I am angry.\nThe customer is'},
               {'role': 'assistant', 'content': 'negative'},
               {'role': 'user',
                'content': 'Message: The glue does not stick, a waste of money.\nThe customer is'},
               {'role': 'assistant', 'content': 'negative'},
               {'role': 'user',
                'content': 'Message: Thank you for the quick help, wonderful shop!\nThe customer is'},
               {'role': 'assistant', 'content': 'positive'},
               {'role': 'user',
                'content': 'Message: The shirt is torn and nobody answers. I am disappointed.\n'
                           'The customer is'},
               {'role': 'assistant', 'content': 'negative'},
               {'role': 'user',
                'content': 'Message: My son is so happy with the drum. Great quality!\nThe customer is'},
               {'role': 'assistant', 'content': 'positive'},
               {'role': 'user', 'content': 'Message: {message}\nThe customer is'}],
  'accept': {'margin': 0.2}},
 {'model': 'gemma-3-270m',
  'temperature': 0.7,
  'stop': ['\n', '<|im_end|>'],
  'n': 5,
  'max_tokens': 10,
  'messages': [{'role': 'user', 'content': 'Message: The towels are soft and I love them.\nThe customer is'},
               {'role': 'assistant', 'content': 'positive'},
               {'role': 'user',
                'content': 'Message: The clock stopped after one day, I am angry.\nThe customer is'},
               {'role': 'assistant', 'content': 'negative'},
               {'role': 'user',
                'content': 'Message: The glue does not stick, a waste of money.\nThe customer is'},
               {'role': 'assistant', 'content': 'negative'},
               {'role': 'user',
                'content': 'Message: Thank you for the quick help, wonderful shop!\nThe customer is'},
               {'role': 'assistant', 'content': 'positive'},
               {'role': 'user',
                'content': 'Message: The shirt is torn and nobody answers. I am disappointed.\n'
                           'The customer is'},
               {'role': 'assistant', 'content': 'negative'},
               {'role': 'user',
                'content': 'Message: My son is so happy with the drum. Great quality!\nThe customer is'},
               {'role': 'assistant', 'content': 'positive'},
               {'role': 'user', 'content': 'Message: {message}\nThe customer is'}]}]


def messages(step, row):
    """The chat messages for one row: a mapping from column to value."""
    template = step.get("messages") or [{"role": "user", "content": step["prompt"]}]
    if isinstance(template, str):  # "{column}": the column has them, or their JSON
        found = row[template.strip("{}")]
        return json.loads(found) if isinstance(found, str) else found
    return [{**one, "content": _filled(one["content"], row)} for one in template]


def _filled(content, row):
    """The content with the row's values: a text, or parts that have texts."""
    if isinstance(content, list):
        return [_filled(part, row) for part in content]
    if isinstance(content, dict):
        return {name: _filled(part, row) for name, part in content.items()}
    return content.format_map(row) if isinstance(content, str) else content


def complete(client, row, read):
    """The answers of the first step whose vote is clear, as texts, else those of the last.

    ``read`` gives what of an answer is voted on, None where it cannot be read; the suite's grader is {'choice': {'labels': ['positive', 'negative']}}.
    """
    for step in STEPS:
        parameters = {name: value for name, value in step.items() if name not in ("prompt", "messages", "accept")}
        found = client.chat.completions.create(messages=messages(step, row), **parameters)
        answers = [choice.message.content or "" for choice in found.choices]
        if "accept" not in step or _accepts(step["accept"], answers, read):
            return answers


def _accepts(rule, answers, read):
    votes = Counter(key for key in map(read, answers) if key is not None).most_common(2)
    lead = votes[0][1] - (votes[1][1] if len(votes) > 1 else 0) if votes else -1
    fits = all(re.search(rule["regex"], answer) for answer in answers) if "regex" in rule else True
    return lead >= rule.get("margin", 0) * len(answers) - 1e-9 and fits
