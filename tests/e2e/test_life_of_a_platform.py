"""A platform on a real cluster: it follows a burst, survives what happens to clusters, and leaves nothing behind.

The tests run in this order: the last one takes the platform away.
"""

import base64
import secrets
import time

from e2e import operator_pod
from e2e.conftest import Say
from e2e.kube import Kube, secret
from e2e.platform import NAME, WORKERS, User, custom_resource
from waiting import eventually

BURST = 500
LEFT_BEHIND = "deployments,jobs,services,serviceaccounts,pods"


def replicas(kube: Kube) -> int:
    found: int = kube.get("deployment", f"{NAME}-worker")["spec"].get("replicas", 1)
    return found


def all_completed(user: User, count: int, timeout: float = 300) -> None:
    eventually(lambda: user.count("COMPLETED") == count, timeout=timeout)
    again = [task["id"] for task in user.tasks() if task["attempt"] != 1]
    assert [user.call("GET", f"/tasks/{task_id}/attempts").json() for task_id in again] == [], "attempts were burned"


def test_workers_follow_a_burst_from_zero_and_back_to_zero(platform: Kube, user: User, say: Say) -> None:
    eventually(lambda: replicas(platform) == 0, timeout=120)
    sent = time.monotonic()
    user.submit(BURST, seconds=1)
    eventually(lambda: replicas(platform) > 0, timeout=60)
    scaled = time.monotonic() - sent
    most = 0

    def finished() -> bool:
        nonlocal most
        most = max(most, replicas(platform))
        return user.count("COMPLETED") == BURST

    eventually(finished, timeout=300)
    done = time.monotonic() - sent
    all_completed(user, BURST)
    eventually(lambda: replicas(platform) == 0 and not platform.running_pods(WORKERS), timeout=180)
    gone = time.monotonic() - sent
    say(f"{BURST} tasks of 1 s: scaled after {scaled:.1f} s, up to {most} pods, done after {done:.0f} s, "
        f"0 pods after {gone:.0f} s, lost 0, attempts burned 0")  # fmt: skip
    assert most > 1


def test_a_rollout_burns_no_attempt(platform: Kube, user: User, say: Say) -> None:
    user.submit(40, seconds=10)
    eventually(lambda: user.count("RUNNING") >= 10, timeout=120)
    before = set(platform.running_pods(WORKERS))
    rolled = custom_resource(env=[{"name": "TASKFLOW_LOG_LEVEL", "value": "debug"}])
    platform.apply(rolled)
    eventually(lambda: before.isdisjoint(platform.running_pods(WORKERS)), timeout=180)
    all_completed(user, 40)
    say(f"rollout of {len(before)} busy pods: 40 tasks COMPLETED, attempts burned 0")


def test_a_rotated_secret_rolls_the_api_and_keeps_its_users_logged_in(platform: Kube, user: User, say: Say) -> None:
    api = "taskflow.io/cluster=e2e,app.kubernetes.io/component=api"
    before = set(platform.running_pods(api))
    keys = platform.get("secret", "keys")["data"]
    platform.run("delete", "secret", "keys")
    old = base64.b64decode(keys["jwt-secret"]).decode()
    platform.apply(secret("keys", jwt_secret=secrets.token_urlsafe(48), jwt_previous_secret=old))
    started = time.monotonic()
    eventually(lambda: before.isdisjoint(platform.running_pods(api)), timeout=180)
    eventually(lambda: platform.condition("tfc", NAME, "Ready").get("status") == "True", timeout=120)
    assert user.call("GET", "/auth/me").status_code == 200
    user.login()
    say(f"rotated the signing key in {time.monotonic() - started:.0f} s; the old token still holds")


def test_an_operator_that_is_killed_in_a_burst_loses_nothing(
    platform: Kube, operator: Kube, user: User, say: Say
) -> None:
    user.submit(100, seconds=2)
    eventually(lambda: user.count("RUNNING") > 0, timeout=120)
    operator.run("delete", "pod", "-l", f"app={operator_pod.NAME}", "--grace-period=0", "--force")
    all_completed(user, 100)
    eventually(lambda: replicas(platform) == 0, timeout=240)
    say("operator killed in a burst of 100: all COMPLETED, attempts burned 0, back to 0 pods")


def test_a_deleted_platform_leaves_nothing_behind(platform: Kube, user: User, say: Say) -> None:
    started = time.monotonic()
    platform.run("delete", "tfc", NAME, "--wait=true", timeout=60)
    returned = time.monotonic() - started
    eventually(lambda: not platform.find(LEFT_BEHIND, f"taskflow.io/cluster={NAME}"), timeout=180)
    say(f"kubectl delete returned after {returned:.1f} s; nothing was left after {time.monotonic() - started:.0f} s")
