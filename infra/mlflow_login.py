"""Makes a login on an MLflow server with `--app-name basic-auth`, or gives it a new password.

Reads MLFLOW_TRACKING_URI, the administrator's MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD, and the new login's MLFLOW_LOGIN_USERNAME and MLFLOW_LOGIN_PASSWORD:
from the environment, because command lines are visible to everyone. Who makes an experiment
manages it; other logins may read it.
"""

from __future__ import annotations

import os
import sys

NAMES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
OF_THE_LOGIN = ("MLFLOW_LOGIN_USERNAME", "MLFLOW_LOGIN_PASSWORD")


def main() -> int:
    if missing := [name for name in (*NAMES, *OF_THE_LOGIN) if not os.environ.get(name)]:
        print(f"error: not set: {', '.join(missing)}", file=sys.stderr)
        return 2
    from mlflow.exceptions import MlflowException
    from mlflow.server import get_app_client

    username, password = (os.environ[name] for name in OF_THE_LOGIN)
    client = get_app_client("basic-auth", tracking_uri=os.environ[NAMES[0]])
    try:
        client.create_user(username, password)
        print(f"made the login {username}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        client.update_user_password(username, password)
        print(f"the login {username} has the given password")
    return 0


if __name__ == "__main__":
    sys.exit(main())
