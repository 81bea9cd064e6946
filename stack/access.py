"""Accounts of an MLflow server with the basic-auth app, and the three roles that they have.

What a role is allowed follows from these grants and from the rules in docker/mlflow_access.py, which separate what
MLflow's grants do not; docs/decisions/access.md has the table.
"""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from morphad.base.errors import BadInputError, ServiceError

ADMIN = "admin"
EXPERIMENT = "morphad"  # the default of `register.experiment`
ROLES = ("reader", "trainer", "approver")

_SECONDS = 30
_WORKSPACE = "default"  # the only one where MLflow's workspaces are off
# Resource type, pattern, permission. Everybody reads everything: `default_permission` of the server.
_GRANTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "reader": (("experiment", "*", "READ"), ("registered_model", "*", "READ")),
    # The grant on versions is what keeps a trainer from changing those that are there; new ones need none.
    "trainer": (
        ("experiment", EXPERIMENT, "EDIT"),
        ("registered_model", "*", "EDIT"),
        ("registered_model_version", "*", "READ"),
    ),
    "approver": (("experiment", "*", "MANAGE"), ("registered_model", "*", "MANAGE")),
}


class Access:
    """The accounts of one server, as its administrator sees them.

    Args:
        uri: Address of the server, such as http://127.0.0.1:15000.
        password: The administrator's.
        name: The administrator's account.
    """

    def __init__(self, uri: str, password: str, name: str = ADMIN) -> None:
        self._uri = uri.rstrip("/")
        self._name = name
        self._password = password

    def prepare(self) -> None:
        """Make the experiment that training runs go to, and the three roles; what is there stays.

        Raises:
            ServiceError: The server does not answer, refuses, or has no accounts.
        """
        experiment = self._experiment()
        roles = self._roles()
        for role, grants in _GRANTS.items():
            number = roles.get(role)
            if number is None:
                number = self._ask("POST", "3.0", "roles/create", name=role, workspace=_WORKSPACE)["role"]["id"]
            answer = self._ask("GET", "3.0", "roles/permissions/list", role_id=number)["role_permissions"]
            there = {(grant["resource_type"], grant["resource_pattern"]) for grant in answer}
            for kind, pattern, permission in grants:
                exact = experiment if pattern == EXPERIMENT else pattern
                if (kind, exact) not in there:
                    given = {"resource_type": kind, "resource_pattern": exact, "permission": permission}
                    self._ask("POST", "3.0", "roles/permissions/add", role_id=number, **given)

    def set_account(self, account: str, password: str, role: str) -> None:
        """Make an account with a password and one of the three roles; where it is there, it gets these two.

        Raises:
            BadInputError: It is the administrator's account.
            ServiceError: The server does not answer or refuses.
        """
        if account == self._name:
            raise BadInputError(f"account {account!r} is the administrator's, who needs no role; choose another name")
        if self._ask_or_none("GET", "2.0", "users/get", username=account) is None:
            self._ask("POST", "2.0", "users/create", username=account, password=password)
        elif not self._has(account, password):
            self._ask("PATCH", "2.0", "users/update-password", username=account, password=password)
        numbers = self._roles()
        has = {one["id"] for one in self._ask("GET", "3.0", "users/roles/list", username=account)["roles"]}
        if numbers[role] not in has:
            self._ask("POST", "3.0", "roles/assign", username=account, role_id=numbers[role])
        for other in ROLES:
            if other != role and numbers[other] in has:
                self._ask("DELETE", "3.0", "roles/unassign", username=account, role_id=numbers[other])

    def _experiment(self) -> str:
        found = self._ask_or_none("GET", "2.0", "experiments/get-by-name", experiment_name=EXPERIMENT)
        if found is None:
            return str(self._ask("POST", "2.0", "experiments/create", name=EXPERIMENT)["experiment_id"])
        return str(found["experiment"]["experiment_id"])

    def _roles(self) -> dict[str, int]:
        answer = self._ask("GET", "3.0", "roles/list", workspace=_WORKSPACE)["roles"]
        return {role["name"]: role["id"] for role in answer}

    def _has(self, account: str, password: str) -> bool:
        try:
            Access(self._uri, password, account)._ask("GET", "2.0", "users/current")
        except _RefusedError as error:
            if error.status != 401:
                raise
            return False
        return True

    def _ask_or_none(self, method: str, version: str, call: str, **arguments: str | int) -> dict[str, Any] | None:
        try:
            return self._ask(method, version, call, **arguments)
        except _RefusedError as error:
            if error.status != 404:
                raise
            return None

    def _ask(self, method: str, version: str, call: str, **arguments: str | int) -> dict[str, Any]:
        address = f"{self._uri}/api/{version}/mlflow/{call}"
        body = None
        if method == "GET":
            address += f"?{urllib.parse.urlencode(arguments)}"
        else:
            body = json.dumps(arguments).encode()
        secret = base64.b64encode(f"{self._name}:{self._password}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
        request = urllib.request.Request(address, body, headers, method=method)  # noqa: S310  # http(s), see below
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                parsed: dict[str, Any] = json.loads(answer.read() or b"{}")
                return parsed
        except urllib.error.HTTPError as error:
            with error:
                why = error.read().decode(errors="replace")
            raise _RefusedError(self._uri, call, error.code, why) from None
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise ServiceError(f"MLflow at {self._uri}: {reason}; start it, or correct its address") from None


class _RefusedError(ServiceError):
    """The server answered with an error."""

    def __init__(self, uri: str, call: str, status: int, why: str) -> None:
        self.status = status
        remedy = {
            401: "the administrator's name or password is wrong",
            403: "the account is not an administrator's",
            404: "is it a server with accounts (mlflow server --app-name basic-auth)?",
        }.get(status, "see the server's log")
        super().__init__(f"MLflow at {uri} refused {call} (HTTP {status}): {_first_line(why)}; {remedy}")


def _first_line(text: str) -> str:
    try:
        said = json.loads(text)
        text = str(said["message"]) if isinstance(said, Mapping) and "message" in said else text
    except ValueError:
        pass
    return (text.strip() or "no reason given").splitlines()[0][:200]
