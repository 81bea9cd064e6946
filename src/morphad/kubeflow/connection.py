"""How Kubeflow's API is reached: address, login, bounded waits, and errors that say what to do.

kfp's own client finds out how to log in. Its calls are those of the generated API beneath it: kfp's convenience methods
print links, keep settings in the home folder, and wait for ever for a server that does not answer.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import kfp
import kfp_server_api as api
import urllib3
from kfp_server_api.exceptions import ApiException, OpenApiException

from morphad.base.errors import BadInputError, OutageError, ServiceError
from morphad.base.text import has_secret

HOST_VARIABLE = "KFP_HOST"
TOKEN_VARIABLE = "KFP_TOKEN"  # noqa: S105 - its name, not the token
NAMESPACE_VARIABLE = "KFP_NAMESPACE"

# Seconds for a connection, which is tried twice, and for an answer; less for the first, which is about nothing.
_WAIT = (4, 30)
_FIRST_WAIT = (4, 8)

_PAGE = 100  # Kubeflow gives at most 200 entries a page


class NotFoundError(ServiceError):
    """Kubeflow has no such thing."""


class AlreadyThereError(ServiceError):
    """Kubeflow has a thing of that name."""


class _Client(kfp.Client):  # type: ignore[misc]
    """kfp's client, made without a question to the server: for its own one it waits 25 s and prints tracebacks."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        return api.V2beta1GetHealthzResponse(multi_user=False)


class Connection:
    """A connection to Kubeflow Pipelines, with the token of the environment's KFP_TOKEN, if there is one.

    Args:
        host: Address of the API, such as http://localhost:8888; None: of the environment's KFP_HOST.
        namespace: For Kubeflow with profiles; None: of the environment's KFP_NAMESPACE, or none.

    Raises:
        BadInputError: There is no host, it is no address, or a namespace is needed.
        ServiceError: Kubeflow did not answer, or refused.
    """

    def __init__(self, host: str | None = None, namespace: str | None = None) -> None:
        self.host = _address(host or os.environ.get(HOST_VARIABLE, ""))
        self.namespace = namespace or os.environ.get(NAMESPACE_VARIABLE) or None
        self._has_token = bool(token := os.environ.get(TOKEN_VARIABLE, "").strip())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that kfp's client is of version 2
            client = _Client(
                host=self.host,
                namespace=self.namespace or "",
                existing_token=token or None,
                ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
            )
        self.api = client.runs.api_client
        # A redirection is the way to a login page. What was sent may have been done: only connecting is repeated.
        self.api.rest_client.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(
            total=None, connect=1, read=False, status=0, other=0, redirect=0, raise_on_redirect=False
        )
        health = self.call(
            "reach it", api.HealthzServiceApi(self.api).healthz_service_get_healthz_with_http_info, wait=_FIRST_WAIT
        )
        if health.multi_user and self.namespace is None:
            raise BadInputError(
                f"{self.host}: this Kubeflow has profiles; give --namespace or set {NAMESPACE_VARIABLE}"
            )

    def call(
        self, what: str, method: Callable[..., Any], *arguments: Any, wait: tuple[int, int] = _WAIT, **keywords: Any
    ) -> Any:
        """Make one call and give its answer.

        Args:
            what: What it is for, for messages: "list the runs".
            method: A method of the generated API whose name ends in _with_http_info.
            arguments: Of the method.
            wait: Seconds for a connection and for an answer.
            keywords: Of the method.

        Raises:
            NotFoundError: Kubeflow has no such thing.
            AlreadyThereError: Kubeflow has a thing of that name.
            ServiceError: It did not answer in time, refused, or is not Kubeflow.
        """
        here = f"Kubeflow at {self.host}: cannot {what}"
        try:
            answer, _, headers = method(*arguments, _request_timeout=wait, **keywords)
        except ApiException as error:
            raise self._refusal(here, error.status or 0, error.body) from error
        except urllib3.exceptions.HTTPError as error:
            raise _silence(here, error) from error
        except (OpenApiException, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ServiceError(f"{here}: {self._strange}") from error
        if "json" not in headers.get("Content-Type", ""):
            raise ServiceError(f"{here}: {self._strange}")
        return answer

    def read(self, what: str, path: str) -> bytes | None:
        """What is at a path of the API that the generated client does not have; None: nothing is.

        Args:
            what: What it is for, for messages.
            path: From /apis on, its parts quoted where they must be.

        Raises:
            OutageError: Kubeflow did not answer in time.
            ServiceError: It refused.
        """
        here = f"Kubeflow at {self.host}: cannot {what}"
        headers = dict(self.api.default_headers)
        self.api.update_params_for_auth(headers, [], ["Bearer"])
        try:
            answer = self.api.rest_client.pool_manager.request(
                "GET",
                f"{self.api.configuration.host}{path}",
                headers=headers,
                timeout=urllib3.Timeout(connect=_WAIT[0], read=_WAIT[1]),
            )
        except urllib3.exceptions.HTTPError as error:
            raise _silence(here, error) from error
        if answer.status in {401, 403}:
            raise self._refusal(here, answer.status, answer.data)
        # Of what is not there some versions say so with 400 or 500, and some with 200.
        content = bytes(answer.data)
        is_page = "html" in answer.headers.get("Content-Type", "")  # of a gateway that does not know the path
        return content if answer.status == 200 and not content.startswith(b'{"error') and not is_page else None

    def pages(self, what: str, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Iterator[Any]:
        """Make a call that lists, and give the answers page after page."""
        token = ""
        while True:
            answer = self.call(what, method, *arguments, page_size=_PAGE, page_token=token, **keywords)
            yield answer
            token = answer.next_page_token
            if not token:
                return

    @property
    def where(self) -> dict[str, Any]:
        """The namespace as an argument of calls that take one."""
        return {} if self.namespace is None else {"namespace": self.namespace}

    @property
    def _strange(self) -> str:
        login = "" if self._has_token else f", or set {TOKEN_VARIABLE} if it shows a login page"
        return (
            "what answers is not Kubeflow's API; give the address under which /apis/v2beta1/healthz answers, such as "
            f"http://localhost:8888 or https://HOST/pipeline{login}"
        )

    def _refusal(self, here: str, status: int, content: bytes | str | None) -> ServiceError:
        body = _json(content)
        where = f" in namespace {self.namespace}" if self.namespace else ""
        renew = f"the token in {TOKEN_VARIABLE} may have run out; get a new one"
        remedy = {
            401: f"not logged in; {renew if self._has_token else f'it wants a token; set {TOKEN_VARIABLE}'}",
            403: f"not allowed{where}; the token's account needs the role kubeflow-edit, or name another namespace",
            404: "not found" if body else self._strange,
            409: "it is there already",
        }.get(status)
        if remedy is None:  # a redirection leads to a login page
            remedy = self._strange if status < 400 else "it failed; try again later" if status >= 500 else "refused"
        kind = {404: NotFoundError, 409: AlreadyThereError}.get(status, OutageError if status >= 500 else ServiceError)
        said = body.get("message") or body.get("error") or body.get("error_message") or ""
        return kind(f"{here}: {remedy} (HTTP {status}{': ' if said else ''}{_first_line(str(said))})")


def _address(host: str) -> str:
    if not host:
        raise BadInputError(
            f"no Kubeflow to talk to; give --host or set {HOST_VARIABLE}, such as http://localhost:8888 after "
            "`kubectl -n kubeflow port-forward svc/ml-pipeline 8888`"
        )
    if has_secret(host):
        raise BadInputError(f"host: has a user or a password in it; put a token into {TOKEN_VARIABLE} instead")
    parts = urlsplit(host)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInputError(f"host {host!r}: expected an address such as http://localhost:8888")
    return host.rstrip("/")


def _silence(here: str, error: urllib3.exceptions.HTTPError) -> ServiceError:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.SSLError):
        remedy = "if the plant has certificates of its own, name their file in SSL_CERT_FILE"
        return ServiceError(f"{here}: no answer ({_first_line(str(reason))}); {remedy}")
    remedy = "check the host, the network or the port-forward, and run it again"
    return OutageError(f"{here}: no answer ({_first_line(str(reason))}); {remedy}")


def _json(content: bytes | str | None) -> dict[str, Any]:
    try:
        body = json.loads(content or "")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:300]
