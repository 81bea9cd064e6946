"""Who a client is to its MLflow server."""

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

_CALL = "/api/2.0/mlflow/users/current"


def authenticated_account(uri: str) -> str | None:
    """The account that this client has for the server, in the server's own words; within a session of the connection.

    It is not what the environment says: the server answers with the account whose password, or token, it has checked.

    Args:
        uri: Address of the server or database that the session is with.

    Returns:
        The account's name. None where there are no accounts: a database, a server without MLflow's basic-auth app, or
        one behind a sign-on of its own.

    Raises:
        MlflowException: The server does not answer in the session's time, or refuses the credentials.
    """
    if not uri.lower().startswith(("http://", "https://")):
        return None
    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(credentials, _CALL, "GET", raise_on_status=False)  # type: ignore[no-untyped-call]
    if answer.status_code in {401, 403} or answer.status_code >= 500:
        why = "Not authenticated" if answer.status_code == 401 else "Refused"
        raise MlflowException(f"{why}: GET {_CALL} failed with error code {answer.status_code}")
    try:
        said = answer.json()
        name = said["user"]["username"] if answer.status_code == 200 else None
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) and name else None
