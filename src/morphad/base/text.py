"""Text for people and for spreadsheets: no secret in it, nested settings as rows, cells that are no formulas.

What is shown, logged, recorded or raised goes through `masked` (text) or `masked_settings` (nested values).
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "***"

# Addresses. A mark stands before the host, or before user and password; the scheme may be missing.
_MARK = re.compile(r"://|(?<![^\s\"'`(\[{<=,;|])//")
_SCHEME = re.compile(r"[\w+.-]*$")
_NAME = re.compile(r"\[[\da-f:.%]+\]|[^:/?#@\s]*", re.IGNORECASE)
_AUTHORITY = re.compile(r"[^/?#\s]*")
_PORT = re.compile(r":\d{1,5}(?=$|[/?#\s]|[:,;.)\]}>|\"'`]+(?:\s|$))")
_HOST = re.compile(r"(?:\[[^\]\s]*\]|[\w.%-]+|(?=/))(?::\d{0,5})?(?=$|[/?#\s\"'`,;:)\]}>|\\])")
_SURE_HOST = re.compile(r"localhost|\[[\da-f:.]+\]|[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
_WORD_END = re.compile(r"[:,;.)\]}>|\"'`]*\s")
_NEXT = re.compile(r"\s[\"'`(\[{<]?(?:[\w.-]+=)?[\w+.-]*://")  # where in running text another address begins
_QUOTES = "\"'`"
# What reads NAME:NUMBER/ as host and port. A database's driver reads it as a user and the beginning of a password.
_WEB = {"", "http", "https", "s3", "s3a", "gs", "ftp", "ftps", "ws", "wss", "git", "file", "tcp"}
# Where a user alone is no secret. For all others it may be a token.
_LOGINS = {
    "ssh", "sftp", "scp", "rsync", "hdfs", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle",
}  # fmt: skip

# Keys and their values. What follows a `+` or `/` is no key but a folder, or base64 that happens to end so.
_KEY = re.compile(r"(?<![\w.+/-])([\w.-]++)(\\*[\"']\]?)?[ \t]*(==?|%3[Dd]|:(?!//))[ \t]*")
_WORDS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SECRET = re.compile(
    r"(?:passw(?:or)?d|passphrase|passcode|pwd|secret|credential|authorization|signature|accesskeyid|"
    r"(?:api|access|secret|private|account|subscription|signing|encryption|master)key)s?\d*$|token\d*$"
)
_SECRET_WORDS = {"sig", "sas", "jwt", "hmac"}  # whole words only: there is `sig` in `design`
_HEADERS = {"xapikey", "xamzsecuritytoken"}
_REST_OF_LINE = re.compile(r"[^\"'\n]+")
_LAST_WORD = re.compile(r"[^\s\"']+(?=[ \t]*$|[\"'])", re.MULTILINE)
_BARE = re.compile(r"[^\s&]+")
_CLOSING = "\"'`,;:.)]}>\\"
_BARE_END = re.compile(r"\\*[\"'][,;)\]}]")
_BEARER = re.compile(r"(\bbearer )(?=[a-z.,;:)]*[^a-z\s.,;:)])[^\s\"',;]+", re.IGNORECASE)
# Words that are of a secret in a query only, and an ODBC connection, which is one value with all of it.
_QUERY = re.compile(r"([?&](?:key|pass|pw|auth|code|odbc_connect)=)(?!\*\*\*)[^\s&\"'#]+", re.IGNORECASE)
_ENCODED_USER = re.compile(r"(?<=%3A%2F%2F)(?!\*\*\*%40)[^\s&\"'/]+(?=%40)", re.IGNORECASE)
_BASIC = re.compile(r"\b(basic )([a-z\d+/]{4,}={0,2})(?![\w+/=])", re.IGNORECASE)

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four: the same signs, full-width


def masked(text: str) -> str:
    """Text without credentials, `***` in their place; text without any comes back as it is.

    Hidden are user and password of every address, however they are written, and the values of keys that sound secret:
    `?token=`, `"api_key": `, `Authorization: `. Where it is not known how far a password goes, more is hidden:
    `http://u:a@b/c@host` becomes `http://***@host`.

    In running text an address ends at a blank. A password with a blank in it is still found in quotes, where it is the
    beginning of the text, and where the part before the blank could not be a port.
    """
    for _ in range(8):  # what is gone may let the rest appear in another light; twice is nearly always enough
        hidden = _BEARER.sub(rf"\g<1>{HIDDEN}", _hide_values(_hide_users(text)))
        hidden = _QUERY.sub(rf"\g<1>{HIDDEN}", _ENCODED_USER.sub(HIDDEN, _BASIC.sub(_hide_basic, hidden)))
        if hidden == text:
            break
        text = hidden
    return text


def has_secret(text: str) -> bool:
    """Whether `masked` would hide something."""
    return masked(text) != text


def masked_settings(value: Any, key: str = "") -> Any:
    """Nested mappings and lists without credentials: texts are masked, what has a key that sounds secret is hidden.

    Args:
        value: Anything JSON can hold.
        key: The key that holds it.
    """
    if value and not isinstance(value, bool) and sounds_secret(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {name: masked_settings(below, str(name)) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(masked_settings(item) for item in value)
    return masked(value) if isinstance(value, str) else value


def secret_places(value: Any) -> list[tuple[str | int, ...]]:
    """Keys and positions that lead to each value that `masked_settings` would hide or change."""
    return list(_secret_places(value, masked_settings(value), ()))


def sounds_secret(key: str) -> bool:
    """Whether a key is of a password, a token or the like: `db_password`, `AWSAccessKeyId`, `X-Amz-Signature`."""
    words = [word.lower() for word in _WORDS.split(key) if word]
    return bool(words) and (words[-1] in _SECRET_WORDS or _SECRET.search("".join(words)) is not None)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one: dotted keys, with the values that are no mappings, and empty ones."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def harmless_cell(value: Any) -> Any:
    """A cell of a CSV table that no spreadsheet reads as a formula: text that begins like one gets a `'` before it.

    Numbers stay as they are, negative ones too.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def plain_cell(text: str) -> str:
    """What `harmless_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _secret_places(value: Any, shown: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if shown == value:
        return
    if isinstance(shown, Mapping):
        for key in value:
            yield from _secret_places(value[key], shown[key], (*place, key))
    elif isinstance(shown, list | tuple):
        for number, item in enumerate(value):
            yield from _secret_places(item, shown[number], (*place, number))
    else:
        yield place


def _hide_users(text: str) -> str:
    """Hide user and password of every address."""
    if "@" not in text:
        return text
    pieces, done = [], 0
    for mark in _MARK.finditer(text):
        begin = mark.end()
        if begin > done and (length := _user_length(text, mark.start(), begin)):
            pieces += [text[done:begin], HIDDEN]
            done = begin + length
    return "".join([*pieces, text[done:]])


def _user_length(text: str, mark: int, begin: int) -> int:
    """How many characters from `begin` are user and password; 0: there are none, or they are hidden already."""
    line_end = _find(text, "\n", begin)
    if text.find("@", begin, line_end) < 0 or text.startswith(("/", f"{HIDDEN}@"), begin):
        return 0
    scheme = _SCHEME.search(text[max(0, mark - 40) : mark])
    start = mark - len(scheme[0]) if scheme else mark
    kinds = set(text[start:mark].lower().split("+"))
    end = begin
    for end in _ends(text, start, begin, line_end):
        if (length := _read_user(text[begin:end], kinds)) is not None:
            return length
    return max(0, text.rfind("@", begin, end) - begin)


def _ends(text: str, start: int, begin: int, line_end: int) -> Iterator[int]:
    """Where an address that has its scheme at `start` may end, the likeliest first."""
    another = _NEXT.search(text, begin - 1, line_end)
    if start == 0 or text[:start].isspace():
        if another:
            yield another.start()
    elif text[start - 1] in _QUOTES:
        yield from _closing_quotes(text, text[start - 1], begin, line_end)
    else:
        line_end = another.start() if another else line_end
        yield from (word.start() for word in _WORD_END.finditer(text, begin, line_end))
    yield line_end


def _closing_quotes(text: str, quote: str, begin: int, end: int) -> Iterator[int]:
    """Where a quotation that begins before `begin` may end: at a quote that is not in the middle of a word."""
    pattern = re.compile(rf"\\*{quote}(?=$|[\s,;:.)\]}}>&])", re.MULTILINE)
    return (found.start() for found in pattern.finditer(text, begin, end))


def _read_user(address: str, kinds: set[str]) -> int | None:
    """The length of user and password of an address without its scheme; None: it cannot be an address that ends here.

    Args:
        address: What follows `://`.
        kinds: The parts of the scheme, such as git and https.
    """
    at = address.rfind("@")
    name = _NAME.match(address)[0]  # type: ignore[index]  # it may be empty, but it matches
    sign = address[len(name) : len(name) + 1]
    if sign in {"", "/", "?", "#"}:
        return 0
    if sign.isspace():
        return max(at, 0) if ":" in address[: max(at, 0)] else 0
    port = _PORT.match(address, len(name))
    if (port or address.startswith(": ", len(name))) and kinds <= _WEB and _SURE_HOST.fullmatch(name):
        return 0
    if port:
        return max(at, 0)
    if sign == "@":
        user = _AUTHORITY.match(address)[0].rpartition("@")[0]  # type: ignore[index]
        if ":" not in user and _HOST.match(address, len(user) + 1):
            return 0 if kinds & _LOGINS else len(user)
    return at if at > 0 and _HOST.match(address, at + 1) else None


def _hide_basic(found: re.Match[str]) -> str:
    """`Basic` with user and password behind it in base64; a word that follows it in a sentence stays."""
    try:
        both = base64.b64decode(found[2], validate=True)
    except ValueError:
        return found[0]
    return f"{found[1]}{HIDDEN}" if b":" in both else found[0]


def _hide_values(text: str) -> str:
    """Hide what stands behind keys that sound secret."""
    pieces, done = [], 0
    for key in _KEY.finditer(text):
        if key.end() < done or not sounds_secret(key[1]):
            continue
        begin, end = _value_of(text, key)
        if text[begin:end].strip(_QUOTES).lower() not in {"", "none", "null", HIDDEN}:
            pieces += [text[done:begin], HIDDEN]
            done = end
    return "".join([*pieces, text[done:]])


def _value_of(text: str, key: re.Match[str]) -> tuple[int, int]:
    """Where the value of a key begins and ends; twice the same: there is none."""
    name, quoted, sign = key.groups()
    begin = key.end()
    if quoted or sign != ":":
        while text.startswith("\\", begin):
            begin += 1
        if text.startswith(("'", '"'), begin):
            line_end = _find(text, "\n", begin)
            end = next(_closing_quotes(text, text[begin], begin + 1, line_end), line_end)
            if end > begin + 1:
                return begin + 1, end
    letters = "".join(_WORDS.split(name)).lower()
    if letters.endswith("authorization") or (sign == ":" and letters in _HEADERS):
        value = _REST_OF_LINE.match(text, begin)
    elif quoted and text.startswith(("{", "["), begin):
        return begin, begin  # the keys in it speak for themselves
    elif quoted or sign != ":":
        return begin, begin + len(_bare(text, begin))
    else:  # a line of YAML, or a header in quotes; in a sentence a colon does not assign anything
        before = text[_rfind(text, "\n", key.start()) : key.start()].lstrip(" -")
        value = None if before and before[-1] not in _QUOTES else _LAST_WORD.match(text, begin)
    return (begin, value.end()) if value else (begin, begin)


def _bare(text: str, begin: int) -> str:
    """A value without quotes, without the punctuation behind it."""
    found = _BARE.match(text, begin)
    if found is None:
        return ""
    value = found[0]
    if (end := _BARE_END.search(value)) and value[: end.start()].rstrip(_CLOSING):
        value = value[: end.start()]
    return value.rstrip(_CLOSING)


def _find(text: str, sign: str, begin: int) -> int:
    """Where a sign is next, or the text's end."""
    found = text.find(sign, begin)
    return len(text) if found < 0 else found


def _rfind(text: str, sign: str, end: int) -> int:
    """Behind where a sign was last, or the text's beginning."""
    return text.rfind(sign, 0, end) + 1


def no_path_column(header: Sequence[str]) -> str:
    """Why a table has no column `path`, and what to do, for a message."""
    for name in header:
        if name.strip().lower() == "path":
            return f"has no column `path`; rename the column {name!r} to path"
    if len(header) == 1:
        for sign, called in ((";", "semicolons"), ("\t", "tabs")):
            if sign in header[0]:
                return f"has no column `path`: its cells are separated by {called}; save it with commas"
    return f"has no column `path`; its columns are {', '.join(header) or 'none'}"
