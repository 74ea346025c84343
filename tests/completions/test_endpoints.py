"""Lists of endpoints in every form: read, checked, and their keys never shown."""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.endpoints import Endpoint, Trust, check_address
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.money.prices import Price
from pytest_llmtune.redaction.keys import KeySources, Secret

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-SECRET-0123456789"
ENVIRON = {"OPENAI_API_KEY": KEY}


def revealed(endpoint: Endpoint) -> list[str]:
    return [key.reveal() for key in endpoint.keys]


def read(given: Any, root: Path, **environ: str) -> tuple[Endpoint, ...]:
    return endpoints_of(given, root=root, environ=environ)


# a secret


def test_a_secret_shows_where_it_is_from() -> None:
    """No way of turning it into text gives the key, and it cannot be written to a file."""
    secret = Secret(KEY, "OPENAI_API_KEY")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", f"{[secret]} { ({1: secret}) }"]
    assert "SECRET" not in "".join(shown)
    assert repr(secret) == "Secret(OPENAI_API_KEY)"
    assert secret.reveal() == KEY
    assert not hasattr(secret, "__dict__")
    for write in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="OPENAI_API_KEY"):
            write(secret)


def test_equal_keys_are_equal_secrets() -> None:
    """Compared by the key, without showing it."""
    assert Secret(KEY, "a") == Secret(KEY, "a") != Secret(KEY + "x", "a")
    assert len({Secret(KEY, "a"), Secret(KEY, "a")}) == 1
    assert Secret(KEY, "a") != KEY


# one endpoint


def test_the_usual_variables_are_enough(tmp_path: Path) -> None:
    """OPENAI_API_KEY alone is OpenAI; a base URL comes from the argument, else from its variable."""
    [openai] = read(None, tmp_path, **ENVIRON)
    assert (openai.base_url, revealed(openai), openai.kind) == ("https://api.openai.com/v1", [KEY], "openai")
    [other] = read(None, tmp_path, **ENVIRON, OPENAI_BASE_URL="https://other.example/v1")
    assert (other.base_url, other.label) == ("https://other.example/v1", "other.example")
    [given] = endpoints_of(
        base_url="http://h:1/v1", root=tmp_path, environ=ENVIRON | {"OPENAI_BASE_URL": "http://x/v1"}
    )
    assert given.url("m") == "http://h:1/v1/chat/completions"


def test_a_local_server_needs_no_key(tmp_path: Path) -> None:
    """Loopback is asked with a dummy key; anything else without a key is an error before a request."""
    [local] = endpoints_of(base_url="http://127.0.0.1:8090/v1", root=tmp_path, environ={})
    assert local.keys[0].origin == "no key"
    with pytest.raises(SuiteError, match=r"no API key for https://api.openai.com/v1; set OPENAI_API_KEY"):
        read(None, tmp_path)


def test_azure_s_variables_are_enough(tmp_path: Path) -> None:
    """Where only Azure is configured, Azure is asked, at the deployment that is named like the model."""
    environ = {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/", "AZURE_OPENAI_API_KEY": KEY}
    [azure] = read(None, tmp_path, **environ)
    assert azure.kind == "azure"
    assert azure.url("gpt-4o") == (
        "https://r.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
    )
    [openai] = read(None, tmp_path, **environ, OPENAI_API_KEY="sk-openai-1234")
    assert openai.kind == "openai"


def test_several_keys_in_one_variable(tmp_path: Path) -> None:
    """One a line or separated by commas; each is known by its place."""
    [endpoint] = read(None, tmp_path, OPENAI_API_KEY="key-one\n key-two,key-three\n")
    assert revealed(endpoint) == ["key-one", "key-two", "key-three"]
    assert [key.origin for key in endpoint.keys] == [f"OPENAI_API_KEY key {number}" for number in (1, 2, 3)]


def test_dotenv_is_read_and_loses_against_the_environment(tmp_path: Path) -> None:
    """NAME=value lines, with export, quotes and comments; the process's environment is not changed."""
    (tmp_path / ".env").write_text(
        "# keys\nexport OPENAI_API_KEY='sk-from-file'  # mine\n\nOPENAI_BASE_URL=https://h.example/v1 # here\n"
        'QUOTED="a # b"\nnot a line\nEMPTY=\n',
        "utf-8-sig",
    )
    [endpoint] = read(None, tmp_path)
    assert (endpoint.base_url, revealed(endpoint)) == ("https://h.example/v1", ["sk-from-file"])
    assert KeySources.of(tmp_path, {}).value("QUOTED") == "a # b"
    assert KeySources.of(tmp_path, {}).value("EMPTY") is None
    [endpoint] = read(None, tmp_path, **ENVIRON, OPENAI_BASE_URL="https://mine.example/v1")
    assert (endpoint.base_url, revealed(endpoint)) == ("https://mine.example/v1", [KEY])


# addresses of strangers


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT"])
def test_a_dotenv_leads_no_key_of_the_environment_away(tmp_path: Path, variable: str) -> None:
    """A .env may come with a checkout: its address gets its own key, or one that the user lets go there."""
    (tmp_path / ".env").write_text(f"{variable}=https://evil.example/v1\n")
    own = {"AZURE_OPENAI_API_KEY": KEY} if variable.startswith("AZURE") else {"OPENAI_API_KEY": KEY}
    with pytest.raises(SuiteError, match=r"\.env: \w+: the address https://evil\.example is not trusted"):
        read(None, tmp_path, **own)
    trusted = Trust.of(hosts=["EVIL.example"])
    [endpoint] = endpoints_of(None, root=tmp_path, environ=own, trust=trusted)
    assert revealed(endpoint) == [KEY]
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=http://localhost:8000/v1\n")
    assert revealed(read(None, tmp_path, **ENVIRON)[0]) == [KEY]


@pytest.mark.parametrize(
    ("entry", "environ"),
    [
        ({"api_key_env": "MY_API_KEY"}, {"MY_API_KEY": KEY}),
        ({"kind": "azure"}, {"AZURE_OPENAI_API_KEY": KEY}),
        ({"api_key": KEY}, {}),
        ({"api_key_file": "keys.txt"}, {}),
    ],
    ids=["named", "azure", "given", "file"],
)
def test_a_dotenv_leads_no_key_of_a_list_away(tmp_path: Path, entry: dict[str, str], environ: dict[str, str]) -> None:
    """Its own OPENAI_API_KEY, which no entry uses, lets no other key go to its address."""
    (tmp_path / "keys.txt").write_text(f"{KEY}\n")
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=https://evil.example/v1\nOPENAI_API_KEY=sk-of-the-checkout\n")
    with pytest.raises(SuiteError, match=r"\.env: OPENAI_BASE_URL: the address https://evil\.example is not trusted"):
        read([entry], tmp_path, **environ)
    assert revealed(read([{"name": "own"}], tmp_path)[0]) == ["sk-of-the-checkout"]


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("https://api.openai.com/v1", True),
        ("https://api.openai.com:443/other", True),
        ("http://127.0.0.1:8080/v1", True),
        ("http://localhost/v1", True),
        ("https://gateway.mine.example/llm", True),
        ("https://trusted.example:8443/v1", True),
        ("http://plain.example:81/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com:444/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://evil.example/api.openai.com", False),
        ("http://trusted.example/v1", False),
        ("http://gateway.mine.example/llm", False),
        ("https://sub.trusted.example/v1", False),
        ("http://127.0.0.1.evil.example/v1", False),
        ("http://169.254.169.254/latest", False),
        ("https://evil.example\\@api.openai.com/v1", False),
    ],
)
def test_a_strangers_suite_names_no_address_of_its_own(tmp_path: Path, address: str, trusted: bool) -> None:
    """Scheme, host and port must be OpenAI's, this machine's or the user's: otherwise no endpoint is made."""
    trust = Trust.of(["https://gateway.mine.example/v1", None], ["trusted.example", "plain.example:81"])
    asking: Any
    for asking in (
        {"base_url": address},
        {"value": [{"base_url": address}]},
        {"value": json.dumps({"base_url": address})},
    ):
        if trusted:
            [endpoint] = endpoints_of(**asking, root=tmp_path, environ=ENVIRON, trust=trust, untrusted=True)
            assert endpoint.base_url == address
        else:
            with pytest.raises(SuiteError, match=r"is not trusted|has a user or password"):
                endpoints_of(**asking, root=tmp_path, environ=ENVIRON, trust=trust, untrusted=True)


@pytest.mark.parametrize("address", ["http://[::1", "https://api.openai.com:port", "https://api.openai.com:99999"])
def test_an_address_that_cannot_be_read_is_refused_and_never_trusted(address: str) -> None:
    with pytest.raises(SuiteError, match=r"valid: http://\.\.\. or https://"):
        check_address(address, "here")
    with pytest.raises(SuiteError, match="is not trusted"):
        Trust.of(["https://gateway.example"], ["api.openai.com"]).check(address, "here")


def test_a_strangers_suite_reads_no_list_outside(tmp_path: Path) -> None:
    """No file above the project, and no variable that is not meant for endpoints; what is there is not told."""
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "list.yaml").write_text("- base_url: https://api.openai.com/v1\n")
    environ = {
        **ENVIRON,
        "SECRET": '[{"base_url": "hidden"}]',
        "OAI_CONFIG_LIST": '[{"base_url": "https://h.example"}]',
    }
    for listed in ("../list.yaml", str(tmp_path / "list.yaml"), "SECRET"):
        with pytest.raises(SuiteError) as caught:
            endpoints_of(listed, root=project, environ=environ, untrusted=True)
        assert "hidden" not in str(caught.value)
    [endpoint] = endpoints_of("OAI_CONFIG_LIST", root=project, environ=environ, untrusted=True)
    assert endpoint.base_url == "https://h.example"  # the list is the user's own
    (project / ".env").write_text("OAI_CONFIG_LIST=" + environ.pop("OAI_CONFIG_LIST"))
    with pytest.raises(SuiteError, match="is not trusted"):
        endpoints_of("OAI_CONFIG_LIST", root=project, environ=environ)


# lists


LISTED = [
    {
        "name": "first",
        "base_url": "https://a.example/v1",
        "api_key_env": "A_API_KEY",
        "models": {"gpt-4o": "gpt-4o-2024-11-20"},
        "prices": {"gpt-4o": {"input": 1, "output": "2.5"}},
        "max_n": 8,
        "requests_per_minute": 500,
        "tokens_per_minute": 1e5,
        "concurrency": 4,
    },
    {"kind": "azure", "base_url": "https://r.openai.azure.com", "api_key": ["k1", "k2"], "api_version": "2025-01-01"},
]


def check_listed(endpoints: tuple[Endpoint, ...]) -> None:
    first, azure = endpoints
    assert (first.label, revealed(first), first.max_n, first.concurrency) == ("first", ["a-key"], 8, 4)
    assert (first.requests_per_minute, first.tokens_per_minute) == (500, 100_000)
    assert first.prices == {"gpt-4o": Price(1, 2.5)}  # type: ignore[arg-type]
    assert (first.serves("gpt-4o"), first.serves("o3")) == (True, False)
    assert first.own_name("gpt-4o") == "gpt-4o-2024-11-20"
    assert (azure.kind, azure.api_version, revealed(azure)) == ("azure", "2025-01-01", ["k1", "k2"])
    assert azure.serves("anything")


@pytest.mark.parametrize("form", ["list", "JSON text", "JSON file", "YAML file", "variable", "variable with a path"])
def test_a_list_has_many_forms(tmp_path: Path, form: str) -> None:
    """The same list as data, text, file, or in a variable."""
    text = json.dumps(LISTED)
    (tmp_path / "my endpoints.json").write_text(text, "utf-8-sig")
    (tmp_path / "endpoints.yaml").write_text(
        "- name: first\n  base_url: https://a.example/v1\n  api_key_env: A_API_KEY\n"
        "  models: {gpt-4o: gpt-4o-2024-11-20}\n  prices: {gpt-4o: {input: 1, output: 2.5}}\n"
        "  max_n: 8\n  requests_per_minute: 500\n  tokens_per_minute: 100000\n  concurrency: 4\n"
        "- {kind: azure, base_url: https://r.openai.azure.com, api_key: [k1, k2], api_version: 2025-01-01}\n"
    )
    given: Any = {
        "list": LISTED,
        "JSON text": f"  {text}",
        "JSON file": "my endpoints.json",
        "YAML file": str(tmp_path / "endpoints.yaml"),
        "variable": "OAI_CONFIG_LIST",
        "variable with a path": "WHERE",
    }[form]
    check_listed(read(given, tmp_path, A_API_KEY="a-key", OAI_CONFIG_LIST=text, WHERE="endpoints.yaml"))


def test_the_ancestor_s_names_of_fields_are_read(tmp_path: Path) -> None:
    """A config list of autogen works as it is."""
    old = [
        {"model": "gpt-4", "api_key": "k", "api_base": "https://r.openai.azure.com", "api_type": "azure"},
        {"model": "gpt-3.5-turbo", "api_key": "k2", "api_type": "open_ai", "api_base": "https://api.openai.com/v1"},
    ]
    azure, openai = read(old, tmp_path)
    assert (azure.kind, azure.models, openai.kind) == ("azure", {"gpt-4": "gpt-4"}, "openai")


def test_the_ancestor_s_key_files_are_read(tmp_path: Path) -> None:
    """A directory with key_openai.txt, key_aoai.txt and base_aoai.txt, several keys one a line."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "key_openai.txt").write_text("sk-one\n\n# old\nsk-two\r\n")
    (keys / "key_aoai.txt").write_text("az-one\naz-two\n")
    (keys / "base_aoai.txt").write_text("https://one.openai.azure.com\nhttps://two.openai.azure.com\n")
    openai, one, two = read("keys", tmp_path)
    assert revealed(openai) == ["sk-one", "sk-two"]
    assert openai.keys[1].origin == "key_openai.txt line 2"
    assert [(e.base_url, revealed(e), e.kind) for e in (one, two)] == [
        ("https://one.openai.azure.com", ["az-one"], "azure"),
        ("https://two.openai.azure.com", ["az-two"], "azure"),
    ]
    (keys / "base_aoai.txt").unlink()
    with pytest.raises(SuiteError, match=r"key_aoai.txt has 2 keys, and base_aoai.txt has 0 addresses"):
        read("keys", tmp_path)


def test_the_ancestor_s_config_lists_can_be_expressed(tmp_path: Path) -> None:
    """config_list_openai_aoai, _from_json, _from_models, _gpt4_gpt35 and get_config_list, as docs/how-to/from-autogen.md says."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "key_openai.txt").write_text("sk-one\nsk-two\n")
    (keys / "key_aoai.txt").write_text("az-one\n")
    (keys / "base_aoai.txt").write_text("https://one.openai.azure.com\n")
    both = read("keys", tmp_path)  # config_list_openai_aoai, and with any models config_list_gpt4_gpt35
    assert [endpoint.kind for endpoint in both] == ["openai", "azure"]
    assert all(endpoint.serves(model) for endpoint in both for model in ("gpt-4", "gpt-3.5-turbo"))
    [openai] = read([{"api_key_file": "keys/key_openai.txt"}], tmp_path)  # exclude="aoai"
    assert revealed(openai) == ["sk-one", "sk-two"]
    azure_entry = {"kind": "azure", "base_url": "https://r.openai.azure.com", "api_key_env": "AZURE_OPENAI_API_KEY"}
    from_variables = read(
        [{"api_key_env": "OPENAI_API_KEY"}, azure_entry],
        tmp_path,
        OPENAI_API_KEY="sk-a\nsk-b",
        AZURE_OPENAI_API_KEY="az",
    )
    assert [revealed(endpoint) for endpoint in from_variables] == [["sk-a", "sk-b"], ["az"]]
    old = [
        {"model": "gpt-4", "api_key": "k1"},
        {"model": "gpt-3.5-turbo", "api_key": "k2", "api_base": "https://h.example/v1", "api_type": "open_ai"},
        {"model": "gpt-4", "api_key": "k3", "api_base": "https://r.openai.azure.com", "api_type": "azure",
         "api_version": "2023-06-01-preview"},
    ]  # fmt: skip
    (tmp_path / "OAI_CONFIG_LIST").write_text(json.dumps(old))
    listed = read("OAI_CONFIG_LIST", tmp_path)  # config_list_from_json
    assert listed == read("OAI_CONFIG_LIST", tmp_path / "keys", OAI_CONFIG_LIST=json.dumps(old))
    assert [revealed(e) for e in listed if e.serves("gpt-4")] == [["k1"], ["k3"]]  # filter_dict={"model": ["gpt-4"]}
    assert listed[2].api_version == "2023-06-01-preview"
    pairs = [("k1", "https://a.example/v1"), ("k2", "https://b.example/v1")]
    several = read([{"api_key": key, "base_url": base} for key, base in pairs], tmp_path)  # get_config_list
    assert [(revealed(endpoint)[0], endpoint.base_url) for endpoint in several] == pairs
    [fallback] = read([{"api_key": "k", "models": {"gpt-4": "gpt-3.5-turbo"}}], tmp_path)
    assert (fallback.serves("gpt-4"), fallback.own_name("gpt-4")) == (True, "gpt-3.5-turbo")


def test_key_files_are_named_in_a_list(tmp_path: Path) -> None:
    """api_key_file: one key per line."""
    (tmp_path / "key_openai.txt").write_text("sk-one\nsk-two")
    [endpoint] = read([{"api_key_file": "key_openai.txt"}], tmp_path)
    assert revealed(endpoint) == ["sk-one", "sk-two"]
    assert endpoint.base_url == "https://api.openai.com/v1"


# mistakes


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (
            [{"base_ulr": "https://h/v1"}],
            r"\[0\] has the unknown field 'base_ulr' \(did you mean 'base_url'\?\); valid: name",
        ),
        ([{"kind": "anthropic"}], "kind is 'anthropic'; valid: openai, azure"),
        ([{"kind": "azure", "api_key": "k"}], "the address is ''; valid: http"),
        ([{"base_url": "ftp://h/v1"}], "the address is 'ftp://h/v1'"),
        ([{"base_url": "h/v1"}], "the address is 'h/v1'"),
        ([{"base_url": "https://me:pw@h/v1"}], "has a user or password"),
        ([{"api_key": 5}], "api_key must be a string"),
        ([{"api_key": []}], "api_key must be a string"),
        ([{"api_key_env": "UNSET_API_KEY"}], "the environment variable UNSET_API_KEY has no key"),
        ([{"api_key_env": "HOME"}], "api_key_env is 'HOME'; valid: a name with API_KEY in it"),
        ([{"api_key_env": "AWS_SECRET_ACCESS_KEY"}], "valid: a name with API_KEY in it"),
        ([{"api_key_file": "gone.txt"}], "there is no key file"),
        ([{"api_key_file": "../outside.txt"}], "outside the project"),
        ([{"api_key_file": "/etc/hostname"}], "outside the project"),
        ([{"api_key_file": "empty.txt"}], "has no key"),
        ([{"api_key": "k", "max_n": 0}], "max_n is 0; valid: a whole number from 1"),
        ([{"api_key": "k", "max_n": 2.5}], "max_n is 2.5"),
        ([{"api_key": "k", "concurrency": True}], "concurrency is True"),
        ([{"api_key": "k", "requests_per_minute": "60"}], "requests_per_minute is '60'; valid: a number from 1"),
        ([{"api_key": "k", "models": []}], r"models is \[\]; valid: a list of models"),
        ([{"api_key": "k", "models": 3}], "models is 3"),
        ([{"api_key": "k", "prices": {"m": {"input": 1}}}], r"endpoints\[0\].prices: the price of 'm'"),
        ([{"api_key": "k", "prices": [1]}], "prices is"),
        ([], "no API key"),
        ([5], r"endpoints\[0\] is int; valid: a mapping"),
        (7, "endpoints are 7; valid: a list of mappings"),
        ("nowhere.yaml", "endpoints are 'nowhere.yaml'; valid: a YAML or JSON file"),
        ("[{", "endpoints: line 1: "),
        ("bad.yaml", r"bad.yaml: line 2: "),
        ("cycle.yaml", "anchors and aliases are not allowed"),
        ("empty_directory", "has no key_openai.txt and no key_aoai.txt"),
        ("LOOP", "endpoints: the environment variable LOOP is neither JSON nor the name of a file"),
        ("AWS_SECRET_ACCESS_KEY", "the environment variable AWS_SECRET_ACCESS_KEY is neither JSON nor"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path: Path, given: Any, what: str) -> None:
    """What, where, and the valid values."""
    root = tmp_path / "project"
    (root / "empty_directory").mkdir(parents=True)
    (tmp_path / "outside.txt").write_text("sk-outside")
    (root / "empty.txt").write_text("# nothing\n")
    (root / "bad.yaml").write_text("- base_url: x\n  api_key: [")
    (root / "cycle.yaml").write_text("- &a [*a]")
    environ = {"HOME": "/root", "AWS_SECRET_ACCESS_KEY": "SECRET", "LOOP": "LOOP"}
    with pytest.raises(SuiteError, match=what):
        read(given, root, **environ)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["base_url", "api_key", "models", "prices", "max_n", "kind", "name"])
                | st.text(max_size=5),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_no_list_raises_anything_but_our_own_error(given: Any) -> None:
    """Whatever a stranger's YAML holds: endpoints, or SuiteError."""
    from pathlib import Path

    try:
        found = endpoints_of(given, root=Path("/nonexistent"), environ=ENVIRON)
    except SuiteError:
        return
    assert all(isinstance(endpoint, Endpoint) and endpoint.keys for endpoint in found)


@pytest.mark.parametrize(
    "given", ['[{"api_key": "sk-SECRET-1", }]', '[{"api_key": "sk-SECRET-1", "nmae": "x"}]', "f.yaml", "g.yaml"]
)
def test_no_mistake_shows_a_key(tmp_path: Path, given: str) -> None:
    """A broken list is described without quoting it."""
    (tmp_path / "f.yaml").write_text("- api_key: sk-SECRET-1\n  base_url: 'http://h\n")
    (tmp_path / "g.yaml").write_text("api_key: sk-SECRET-1\n bad: [indent")
    with pytest.raises(SuiteError) as caught:
        read(given, tmp_path)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
