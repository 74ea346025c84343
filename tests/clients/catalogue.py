"""Real client libraries, each asking once: what is needed of them is that they answer, not how."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLIENTS", "Client"]

QUESTION: Any = [{"role": "user", "content": "What is six times seven?"}]
MODEL, CLAUDE, GEMINI, COMMAND = "gpt-4o-mini", "claude-haiku-4-5", "gemini-2.5-flash", "command-r7b-12-2024"


class Client(NamedTuple):
    """One library's way of asking."""

    library: str
    """The module that has to be installed."""
    ask: Callable[[str], Any]
    """From the server's URL, without ``/v1``, to what was said."""
    priced: bool = True
    """Whether its answers cost something."""


def openai_chat(url: str) -> Any:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        return client.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message.content


def openai_responses(url: str) -> Any:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        return client.responses.create(model=MODEL, input="six times seven").output_text


def openai_stream(url: str) -> Any:
    import openai

    more: Any = {"stream": True, "stream_options": {"include_usage": True}}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        stream = client.chat.completions.create(model=MODEL, messages=QUESTION, **more)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def openai_speech(url: str) -> Any:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        return client.audio.speech.create(model="tts-1", voice="alloy", input="forty-two").read()


def openai_refused(url: str) -> Any:
    import openai

    refused: Any = [{"role": "user", "content": "refuse this"}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        try:
            client.chat.completions.create(model=MODEL, messages=refused)
        except openai.BadRequestError as error:
            return error.code
    return None


def anthropic(url: str) -> Any:
    from anthropic import Anthropic

    with Anthropic(base_url=url, api_key="any") as client:
        return client.messages.create(model=CLAUDE, max_tokens=10, messages=QUESTION).content[0].text


def anthropic_stream(url: str) -> Any:
    from anthropic import Anthropic

    with (
        Anthropic(base_url=url, api_key="any") as client,
        client.messages.stream(model=CLAUDE, max_tokens=10, messages=QUESTION) as stream,
    ):
        return "".join(stream.text_stream)


def anthropic_tools(url: str) -> Any:
    from anthropic import Anthropic

    tools: Any = [{"name": "who", "input_schema": {"type": "object", "properties": {"name": {"type": "string"}}}}]
    with Anthropic(base_url=url, api_key="any") as client:
        first = client.messages.create(model=CLAUDE, max_tokens=10, messages=QUESTION, tools=tools)
        said = {"role": "assistant", "content": [block.model_dump() for block in first.content]}
        result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "42"}
        messages: Any = [*QUESTION, said, {"role": "user", "content": [result]}]
        return client.messages.create(model=CLAUDE, max_tokens=10, messages=messages, tools=tools).content[0].text


def gemini(url: str) -> Any:
    from google import genai

    client = genai.Client(api_key="any", http_options={"base_url": url})
    return client.models.generate_content(model=GEMINI, contents="six times seven").text


def gemini_stream(url: str) -> Any:
    from google import genai

    client = genai.Client(api_key="any", http_options={"base_url": url})
    parts = client.models.generate_content_stream(model=GEMINI, contents="six times seven")
    return "".join(part.text for part in parts)


def cohere(url: str) -> Any:
    from cohere import ClientV2

    reply = ClientV2(api_key="any", base_url=url).chat(model=COMMAND, messages=QUESTION)
    return reply.message.content[0].text


def cohere_stream(url: str) -> Any:
    from cohere import ClientV2

    events = ClientV2(api_key="any", base_url=url).chat_stream(model=COMMAND, messages=QUESTION)
    return "".join(event.delta.message.content.text or "" for event in events if event.type == "content-delta")


def ollama(url: str) -> Any:
    from ollama import Client as Ollama

    return Ollama(host=url).chat(model="llama3.2", messages=QUESTION).message.content


def ollama_stream(url: str) -> Any:
    from ollama import Client as Ollama

    parts = Ollama(host=url).chat(model="llama3.2", messages=QUESTION, stream=True)
    return "".join(part.message.content for part in parts)


def bedrock(url: str) -> Any:
    import boto3

    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_EC2_METADATA_DISABLED": "true"}
    client = boto3.client("bedrock-runtime", endpoint_url=url, region_name="us-east-1")
    asked = [{"role": "user", "content": [{"text": "six times seven"}]}]
    return client.converse(modelId="amazon.nova-lite-v1:0", messages=asked)["output"]["message"]["content"][0]["text"]


def bedrock_stream(url: str) -> Any:
    import boto3

    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_EC2_METADATA_DISABLED": "true"}
    client = boto3.client("bedrock-runtime", endpoint_url=url, region_name="us-east-1")
    asked = [{"role": "user", "content": [{"text": "six times seven"}]}]
    stream = client.converse_stream(modelId="amazon.nova-lite-v1:0", messages=asked)["stream"]
    return "".join(event.get("contentBlockDelta", {}).get("delta", {}).get("text", "") for event in stream)


def mistral(url: str) -> Any:
    try:
        from mistralai import Mistral
    except ImportError:
        from mistralai.client import Mistral

    with Mistral(api_key="any", server_url=url) as client:
        return client.chat.complete(model="mistral-small-latest", messages=QUESTION).choices[0].message.content


def litellm(url: str) -> Any:
    import litellm as library

    reply = library.completion(model=f"openai/{MODEL}", api_base=f"{url}/v1", api_key="any", messages=QUESTION)
    return reply.choices[0].message.content


def litellm_async(url: str) -> Any:
    import litellm as library

    job = library.acompletion(model=f"openai/{MODEL}", api_base=f"{url}/v1", api_key="any", messages=QUESTION)
    return asyncio.run(job).choices[0].message.content


def dspy(url: str) -> Any:
    import dspy as library

    with library.context(lm=library.LM(f"openai/{MODEL}", api_base=f"{url}/v1", api_key="any", cache=False)):
        return library.Predict("question -> answer")(question="six times seven").answer


def dspy_async(url: str) -> Any:
    import dspy as library

    with library.context(lm=library.LM(f"openai/{MODEL}", api_base=f"{url}/v1", api_key="any", cache=False)):
        return asyncio.run(library.Predict("question -> answer").acall(question="six times seven")).answer


def llama_index(url: str) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(model=MODEL, api_base=f"{url}/v1", api_key="any").complete("six times seven").text


def langchain_openai(url: str) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key="any").invoke("six times seven").content


def langchain_anthropic(url: str) -> Any:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model=CLAUDE, base_url=url, api_key="any").invoke("six times seven").content


def pydantic_ai(url: str) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="any"))
    return Agent(model).run_sync("six times seven").output


def instructor(url: str) -> Any:
    import instructor as library
    import openai
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str

    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        asking = library.from_openai(client)
        return asking.chat.completions.create(model=MODEL, messages=QUESTION, response_model=Person).name


def openai_agents(url: str) -> Any:
    import agents
    import openai

    agents.set_tracing_disabled(True)
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any")
    model = agents.OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
    return agents.Runner.run_sync(agents.Agent(name="one", model=model), "six times seven").final_output


def haystack(url: str) -> Any:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.utils import Secret

    generator = OpenAIChatGenerator(model=MODEL, api_base_url=f"{url}/v1", api_key=Secret.from_token("any"))
    return generator.run([ChatMessage.from_user("six times seven")])["replies"][0].text


def smolagents(url: str) -> Any:
    from smolagents import OpenAIModel

    asked: Any = [{"role": "user", "content": [{"type": "text", "text": "six times seven"}]}]
    return OpenAIModel(model_id=MODEL, api_base=f"{url}/v1", api_key="any").generate(asked).content


CLIENTS = {
    "openai": Client("openai", openai_chat),
    "openai, Responses": Client("openai", openai_responses),
    "openai, stream": Client("openai", openai_stream),
    "openai, speech": Client("openai", openai_speech),
    "openai, status 400": Client("openai", openai_refused, priced=False),
    "anthropic": Client("anthropic", anthropic),
    "anthropic, stream": Client("anthropic", anthropic_stream),
    "anthropic, tools": Client("anthropic", anthropic_tools),
    "google-genai": Client("google.genai", gemini),
    "google-genai, stream": Client("google.genai", gemini_stream),
    "cohere": Client("cohere", cohere),
    "cohere, stream": Client("cohere", cohere_stream),
    "ollama": Client("ollama", ollama),
    "ollama, stream": Client("ollama", ollama_stream),
    "boto3 (Bedrock)": Client("boto3", bedrock),
    "boto3 (Bedrock), stream": Client("boto3", bedrock_stream),
    "mistralai": Client("mistralai", mistral),
    "litellm": Client("litellm", litellm),
    "litellm, async": Client("litellm", litellm_async),
    "dspy": Client("dspy", dspy),
    "dspy, async": Client("dspy", dspy_async),
    "llama-index": Client("llama_index.llms.openai", llama_index),
    "langchain-openai": Client("langchain_openai", langchain_openai),
    "langchain-anthropic": Client("langchain_anthropic", langchain_anthropic),
    "pydantic-ai": Client("pydantic_ai", pydantic_ai),
    "instructor": Client("instructor", instructor),
    "openai-agents": Client("agents", openai_agents),
    "haystack-ai": Client("haystack", haystack),
    "smolagents": Client("smolagents", smolagents),
}
