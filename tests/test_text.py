"""No secret comes through the masker, whatever its shape, and what holds none comes back as it is."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphad.base.errors import BadInputError
from morphad.base.text import (
    flattened,
    harmless_cell,
    has_secret,
    masked,
    masked_settings,
    plain_cell,
    secret_places,
    sounds_secret,
)

NASTY = "aZ9ü:/@ %'\"`?#&=\\;,.[]{}()<>|+~!$^-_"
SCHEMES = st.sampled_from(["http", "https", "postgresql+psycopg2", "mysql", "s3", "git+https", "ssh", "mssql"])
USERS = st.text("aZ9-_%", min_size=1, max_size=5)


def for_any(*strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    return lambda test: settings(deadline=None)(given(*strategies)(test))  # the machine may have other things to do


def passwords(alphabet: str = NASTY) -> st.SearchStrategy[str]:
    """Passwords with two letters somewhere: of punctuation alone nobody could say whether it was shown."""
    some, letter = st.text(alphabet, max_size=5), st.sampled_from("aZ9")
    return st.tuples(some, letter, some, letter, some).map("".join)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://anna:s3cret@host/x", "https://***@host/x"),
        ("postgresql://u:a/b@host/db", "postgresql://***@host/db"),
        ("postgresql://u:1234/b@host/db", "postgresql://***@host/db"),
        ("http://u:a@b@host", "http://***@host"),
        ("http://u:a@b/c@host", "http://***@host"),
        ("postgresql://u:my pass@host/db", "postgresql://***@host/db"),
        ("cannot reach postgresql://u:my pass@host/db: refused", "cannot reach postgresql://***@host/db: refused"),
        ("http://u%40x:p%3Aw@[::1]:80/x", "http://***@[::1]:80/x"),
        ("redis://:pw@host/0", "redis://***@host/0"),
        ("https://ghp_token@host/x@v1", "https://***@host/x@v1"),
        ("s3://KEY:SE/CRET@bucket/x", "s3://***@bucket/x"),
        ("//u:p@host/x", "//***@host/x"),
        ("http://'u':'p'@host", "http://***@host"),
        ("'postgresql://u:it's@host/db' is away", "'postgresql://***@host/db' is away"),
        ("http://u:p@h1/x and http://v:q@h2/y", "http://***@h1/x and http://***@h2/y"),
        ('["http://u:p@h1","http://v:q@h2"]', '["http://***@h1","http://***@h2"]'),
        ("http://proxy.plant:80/?to=http://u:p@h", "http://proxy.plant:80/?to=http://***@h"),
        # as git, SQLAlchemy, urllib3, boto and kfp say it
        (
            "fatal: unable to access 'https://u:p@h/r.git/': Could not resolve host: h",
            "fatal: unable to access 'https://***@h/r.git/': Could not resolve host: h",
        ),
        ("to 'postgresql://h/d?user=a&password=s3cret'", "to 'postgresql://h/d?user=a&password=***'"),
        (
            'Could not connect to the endpoint URL: "http://u:p@h/b"',
            'Could not connect to the endpoint URL: "http://***@h/b"',
        ),
        (
            "no answer for url: /b/k?X-Amz-Credential=AKIA%2F1&X-Amz-Date=2&X-Amz-Signature=ab (Caused by x)",
            "no answer for url: /b/k?X-Amz-Credential=***&X-Amz-Date=2&X-Amz-Signature=*** (Caused by x)",
        ),
        (
            "https://b.s3.example/k?AWSAccessKeyId=A&Signature=b%2Fc%3D&Expires=1",
            "https://b.s3.example/k?AWSAccessKeyId=***&Signature=***&Expires=1",
        ),
        ("https://h/x?sv=1&sig=a%2Bb&API_KEY=c&api-key=d", "https://h/x?sv=1&sig=***&API_KEY=***&api-key=***"),
        (
            "headers: Dict({'Authorization': 'Bearer a.b', 'x': 'y'})",
            "headers: Dict({'Authorization': '***', 'x': 'y'})",
        ),
        ("Authorization: AWS4-HMAC-SHA256 Credential=A/b, Signature=c", "Authorization: ***"),
        ("curl -H 'authorization: Basic dTpw' h", "curl -H 'authorization: ***' h"),
        ("got Bearer ey0.a-b, refused", "got Bearer ***, refused"),
        ("AWS_SECRET_ACCESS_KEY=a/b+c, x", "AWS_SECRET_ACCESS_KEY=***, x"),
        ("lines.x.register.db_password = 'a b': unknown key", "lines.x.register.db_password = '***': unknown key"),
        ('{"token": "a", "n": 1, "secretKey": "b"}', '{"token": "***", "n": 1, "secretKey": "***"}'),
        ("a: b\n  password: hunter2\nc: d", "a: b\n  password: ***\nc: d"),
        ("refused: Basic dTpw, as ever", "refused: Basic ***, as ever"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3Dp", "mssql+pyodbc:///?odbc_connect=***"),
        ("see https://h/login?to=x%3FPWD%3Dp&n=1", "see https://h/login?to=x%3FPWD%3D***&n=1"),
        ("https://h/go?to=https%3A%2F%2Fu%3Ap%40host%2Fx", "https://h/go?to=https%3A%2F%2F***%40host%2Fx"),
        ("https://h/hook?code=a1&n=2", "https://h/hook?code=***&n=2"),
        ("https://h/?auth=a&key=b&pass=c&sas=d", "https://h/?auth=***&key=***&pass=***&sas=***"),
        ("Ocp-Apim-Subscription-Key=a1", "Ocp-Apim-Subscription-Key=***"),
    ],
)
def test_credentials_are_hidden_and_the_rest_stays(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown
    assert has_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sqlite:////home/x@y/mlflow.db",
        "sqlite:///C:/x@y/mlflow.db",
        "file:///data/a:b@c",
        "s3://bucket/a@b",
        "s3://bucket/lot 7/a:b@c.png",
        "https://host/path/a@b?c=d@e",
        "http://127.0.0.1:9000/bucket/icon@2x.png",
        "http://[::1]:5000/a@b",
        "https://mlflow.plant.example:5000/#/x@y",
        "anna@plant.example",
        "basic settings, and Basic auth",
        "https%3A%2F%2Fhost%2Fx",
        "the key=value form, exit code=2",
        "write to anna@plant.example: see https://host/x",
        "git@host:team/data.git",
        "ssh://git@host:22/team/data.git",
        "git+ssh://git@host/x@v1",
        "postgresql://mlflow@127.0.0.1:5432/mlflow",
        "MLflow at http://mlflow:5000: no version models:/morphad-pcb@champion",
        "expected http://HOST:PORT, https://HOST, sqlite:///FILE or postgresql://USER@HOST/NAME (correct it)",
        "https://***@host: no version models:/morphad-pcb@champion",
        'password authentication failed for user "mlflow"',
        "token: expected text, got a number",
        "a token is missing; set KFP_TOKEN",
        "the Bearer token is missing",
        "Basic authentication is needed",
        "design=3 tokens=4 sigma=5 page_token=None signature=''",
        "C:\\data\\a@b",
        "s3://bucket/lot=7/sig=1/token=2",  # folders, as Hive names them
        '<img src="data:image/png;base64,iVBO+Rw0/Pwd="><td class="x">',
        "a//b@c",
    ],
)
def test_text_without_secrets_comes_back_as_it_is(text: str) -> None:
    assert masked(text) == text
    assert not has_secret(text)


@for_any(SCHEMES, USERS, passwords(), st.sampled_from(["host", "h.example:5000/x", "127.0.0.1/d?a=b", "[::1]:80/x"]))
def test_an_address_keeps_its_host_and_nothing_of_its_password(
    scheme: str, user: str, password: str, host: str
) -> None:
    assert masked(f"{scheme}://{user}:{password}@{host}") == f"{scheme}://***@{host}"


@for_any(SCHEMES, USERS, passwords(), st.sampled_from("'\"`"))
def test_a_password_in_a_quoted_address_is_hidden(scheme: str, user: str, password: str, quote: str) -> None:
    password = password.replace(quote, "")  # whoever quotes a text takes other quotes than there are in it
    said = masked(f"cannot reach {quote}{scheme}://{user}:{password}@h.example:5000/x{quote}: refused")
    assert password not in said
    assert masked(said) == said


@for_any(SCHEMES, USERS, passwords(NASTY.replace(" ", "")), passwords())
def test_a_password_in_running_text_is_hidden(scheme: str, user: str, password: str, other: str) -> None:
    other = other.replace("'", "")
    said = masked(f"cannot reach {scheme}://{user}:{password}@host/x: refused; nor 'http://u:{other}@h.example'")
    assert password not in said
    assert other not in said
    assert masked(said) == said


KEYS = st.sampled_from(
    [
        "password",
        "PASSWD",
        "pwd",
        "token",
        "secret",
        "api_key",
        "apikey",
        "api-key",
        "Access_Key",
        "secret_key",
        "sig",
        "signature",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "X-Amz-Security-Token",
        "AWSAccessKeyId",
        "MLFLOW_TRACKING_PASSWORD",
        "accessToken",
        "client_secret",
    ]
)


@for_any(KEYS, passwords(NASTY.replace(" ", "").replace("&", "")))
def test_the_value_of_a_secret_key_is_hidden(key: str, value: str) -> None:
    for text in (f"https://h/x?a=1&{key}={value}&b=2", f"at https://h/x?{key}={value}: 403", f"run {key}={value} now"):
        said = masked(text)
        assert value not in said
        assert key in said
        assert masked(said) == said


@for_any(KEYS, passwords(re.sub("['\"`\\\\]", "", NASTY)))
def test_the_quoted_value_of_a_secret_key_is_hidden(key: str, value: str) -> None:
    for text in (f"{key} = '{value}': no", f'{{"{key}": "{value}", "b": 1}}', f"environ['{key}'] = '{value}'"):
        assert value not in masked(text)


@for_any(passwords(re.sub("['\"]", "", NASTY)))
def test_a_header_is_hidden(value: str) -> None:
    for text in (
        f"Authorization: Bearer {value}",
        f"authorization: Basic {value}\nHost: h",
        f"-H 'x-api-key: {value}' h",
    ):
        assert value not in masked(text)


@for_any(st.text(NASTY + "\nhtpswordken:/=", max_size=60))
def test_masked_text_is_masked_once_and_for_all(text: str) -> None:
    assert masked(masked(text)) == masked(text)


@for_any(st.text("abz .,;-_()!?\n", max_size=60))
def test_words_are_left_alone(text: str) -> None:
    assert masked(text) == text


def test_a_long_text_takes_no_time() -> None:
    assert masked("a" * 200_000) == "a" * 200_000
    assert masked("x http://u:p@h" * 2_000) == "x http://***@h" * 2_000


SETTINGS: dict[str, Any] = {
    "register": {"tracking_uri": "https://u:a/b@host", "db_password": ["a", 1], "token": None, "use_token": True},
    "steps": [1, "http://v:q w@h", {"api_key": 7}],
    "plain": {"path": "s3://b/a@b", "n": -1.5, "pair": (1, 2), "none": {}},
}


def test_settings_are_masked_wherever_they_hold_a_secret() -> None:
    assert masked_settings(SETTINGS) == {
        "register": {"tracking_uri": "https://***@host", "db_password": "***", "token": None, "use_token": True},
        "steps": [1, "http://***@h", {"api_key": "***"}],
        "plain": SETTINGS["plain"],
    }
    assert masked_settings(masked_settings(SETTINGS)) == masked_settings(SETTINGS)
    assert secret_places(SETTINGS) == [
        ("register", "tracking_uri"), ("register", "db_password"), ("steps", 1), ("steps", 2, "api_key"),
    ]  # fmt: skip
    assert secret_places(SETTINGS["plain"]) == []


@pytest.mark.parametrize("key", ["tokens", "design", "page_size", "labels", "max_tokens", "PASS", "key", "cookie", ""])
def test_keys_that_are_no_secret(key: str) -> None:
    assert not sounds_secret(key)


def test_nested_values_become_rows() -> None:
    assert flattened({"a": {"b": 1, "c": {"d": [2]}}, "e": {}, "f": None}) == {
        "a.b": 1, "a.c.d": [2], "e": {}, "f": None,
    }  # fmt: skip


def test_errors_show_no_secret_whoever_raises_them() -> None:
    assert str(BadInputError("ingest.path = 's3://KEY:a/b@bucket/x': no")) == "ingest.path = 's3://***@bucket/x': no"


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "'=", "\uff1d"])
def test_text_that_begins_like_a_formula_is_made_harmless_and_found_again(sign: str) -> None:
    text = f"{sign}cmd|' /C calc'!A0.png"
    assert harmless_cell(text) == f"'{text}"
    assert plain_cell(harmless_cell(text)) == text


@pytest.mark.parametrize("value", [-1.5, -1, None, True, "a=b", "'quoted'", "'", "", " =x", "lot-1/a.png"])
def test_other_cells_stay_as_they_are(value: Any) -> None:
    assert harmless_cell(value) is value
    assert not isinstance(value, str) or plain_cell(value) == value
