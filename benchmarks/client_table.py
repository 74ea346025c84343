"""Which client libraries are recorded, replayed, metered and kept offline: the table of docs/how-to/app-tests.md.

pip install 'pytest-llmtune[clients]'
python benchmarks/client_table.py [NAME ...]
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ.setdefault("OPENAI_API_KEY", "any")
warnings.simplefilter("ignore")

from clients.catalogue import CLIENTS, Client  # noqa: E402
from clients.examine import installed, let_out, metered, recorded_and_replayed  # noqa: E402
from support.providers import Providers  # noqa: E402


def row(name: str, client: Client) -> str:
    """One line of the table."""
    if not installed(client):
        return f"| {name} | not installed | | | |"
    marks = []
    with tempfile.TemporaryDirectory() as directory, Providers() as providers:
        path = Path(directory) / "app.cassette.json"
        found = recorded_and_replayed(client, providers, path)
        marks.append("yes" if found["asked"] and found["no cookie"] and found["same bytes"] else str(found))
        marks.append("yes" if found["same answer"] and found["nothing sent"] else str(found))
        if client.priced:
            costs = metered(client, providers, path)
            marks.append(f"${costs[0]:f}" if costs[0] == costs[1] > 0 else f"{costs}")
        else:
            marks.append("-")
        providers.requests.clear()
        marks.append("yes" if not let_out(client, providers, Path(directory) / "none.cassette.json") else "no")
    return f"| {name} | {' | '.join(marks)} |"


def main() -> None:
    """Print the table, and the versions it was made with."""
    print("| client | records | replays | metered | offline |\n|---|---|---|---|---|")
    for name in sys.argv[1:] or CLIENTS:
        print(row(name, CLIENTS[name]), flush=True)
    packages = ("openai", "anthropic", "google-genai", "cohere", "ollama", "boto3", "mistralai", "litellm", "dspy")
    packages += ("llama-index-llms-openai", "langchain-openai", "langchain-anthropic", "pydantic-ai-slim", "instructor")
    packages += ("openai-agents", "haystack-ai", "smolagents", "httpx", "aiohttp")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    print(f"\nMade by `python benchmarks/client_table.py` with {', '.join(versions)}.")


if __name__ == "__main__":
    main()
