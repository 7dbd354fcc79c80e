"""The operator on a real API server; Jobs, Deployments and pods are played by the test."""

from cluster.operators import running_operator
from cluster.steps import MANUAL, deployments, image, roll_out, ticks, until, versions
from cluster.world import Cluster
from taskflow_operator.cluster import KubernetesApi
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, JOB, SERVICE, SERVICE_ACCOUNT
from taskflow_operator.store import Place


async def test_a_cluster_comes_up_in_order_and_is_left_alone_at_rest(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    async with running_operator(kubernetes, cluster.namespace) as operator:
        await until(lambda: operator.leads)
        cluster.create(workers=MANUAL)
        await until(lambda: cluster.is_so("Progressing", "True", "Migrating"))
        assert deployments(cluster) == {}
        assert len(cluster.all_of(SERVICE_ACCOUNT)) == 4
        await roll_out(cluster)
        assert set(deployments(cluster)) == {"shop-api", "shop-scheduler", "shop-worker"}
        assert deployments(cluster)["shop-api"]["spec"]["replicas"] == 2
        found = cluster.get(CLUSTER, "shop")
        assert found is not None
        assert found["status"]["phase"] == "Running"
        assert "finalizers" not in found["metadata"]
        assert not any("kopf" in key for key in found["metadata"].get("annotations", {}))
        before = versions(cluster)
        await ticks(operator, cluster, 4)
        assert versions(cluster) == before


async def test_a_changed_object_is_repaired_and_a_deleted_one_made_again(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        ports = [{"name": "http", "port": 81, "targetPort": "http"}]
        cluster.patch(SERVICE, "shop-api", {"spec": {"ports": ports}})
        await until(lambda: (cluster.get(SERVICE, "shop-api") or {})["spec"]["ports"][0]["port"] == 80)
        cluster.delete(DEPLOYMENT, "shop-scheduler")
        await until(lambda: "shop-scheduler" in deployments(cluster))
        cluster.patch(DEPLOYMENT, "shop-api", {"spec": {"replicas": 7}}, sub="scale")
        await until(lambda: deployments(cluster)["shop-api"]["spec"]["replicas"] == 2)


async def test_an_image_rolls_out_after_its_migration_and_a_failing_one_holds_it(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        cluster.patch(CLUSTER, "shop", {"spec": {"image": {"tag": "2.0"}}})
        await until(lambda: cluster.is_so("Progressing", "True", "Migrating"))
        assert image(cluster, "shop-worker") == "example.com/taskflow:1.0"
        cluster.end_jobs("Failed")
        await until(lambda: cluster.is_so("Degraded", "True", "MigrationFailed"))
        assert image(cluster, "shop-api") == "example.com/taskflow:1.0"
        assert cluster.is_so("Ready", "True")
        cluster.patch(CLUSTER, "shop", {"spec": {"image": {"tag": "2.1"}}})
        await roll_out(cluster)
        assert image(cluster, "shop-worker") == "example.com/taskflow:2.1"
        assert cluster.is_so("Degraded", "False")
        assert len(cluster.all_of(JOB)) == 1
        assert any(event.startswith("Warning MigrationFailed") for event in cluster.events())


async def test_secrets_that_are_missing_or_wrong_are_named_and_hold_up_no_other_cluster(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    cluster.secret("jwt", wrong="x")
    cluster.create(workers=MANUAL)
    cluster.secret("good", **{"jwt-secret": "g" * 40})
    cluster.create("other", workers=MANUAL, auth={"secretRef": {"name": "good"}})
    async with running_operator(kubernetes, cluster.namespace):
        await until(lambda: cluster.is_so("Degraded", "True", "SecretMissing"))
        said = cluster.condition("Degraded")["message"]
        assert said == "Secret jwt has no key jwt-secret, which spec.auth.secretRef needs (its keys: wrong)"
        cluster.secret("jwt", **{"jwt-secret": "short"})
        await until(lambda: "must hold at least 32 bytes" in cluster.condition("Degraded")["message"])
        cluster.secret("postgres", url="mysql://u:hunter2@db/x")
        await until(lambda: "must look like postgresql://" in cluster.condition("Degraded")["message"])
        assert "hunter2" not in str(cluster.get(CLUSTER, "shop"))
        assert deployments(cluster).keys() & {"shop-api", "shop-worker"} == set()
        cluster.secret("postgres", url="postgresql://u:p@127.0.0.1:5432/taskflow")
        cluster.secret("jwt", **{"jwt-secret": "j" * 40})
        await roll_out(cluster)
        await roll_out(cluster, "other")
        assert cluster.is_so("Degraded", "False")


async def test_a_rotated_secret_rolls_the_pods_that_use_it(cluster: Cluster, kubernetes: KubernetesApi) -> None:
    def hashes() -> dict[str, str]:
        return {
            name: body["spec"]["template"]["metadata"]["annotations"]["taskflow.io/secrets"]
            for name, body in deployments(cluster).items()
        }

    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        before = hashes()
        cluster.secret("jwt", **{"jwt-secret": "n" * 40})
        cluster.patch(CLUSTER, "shop", {"spec": {"api": {"replicas": 3}}})
        await until(lambda: hashes()["shop-api"] != before["shop-api"])
        assert hashes()["shop-worker"] == before["shop-worker"]


async def test_a_name_that_is_taken_is_left_alone_until_it_is_free(cluster: Cluster, kubernetes: KubernetesApi) -> None:
    labels = {"app": "theirs"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "theirs"}]}}
    theirs = {"metadata": {"name": "shop-api"}, "spec": {"selector": {"matchLabels": labels}, "template": pod}}
    made = cluster.post(DEPLOYMENT.path(cluster.namespace), theirs)
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace):

        def taken() -> bool:
            cluster.end_jobs()
            return cluster.is_so("Degraded", "True", "NameTaken")

        await until(taken)
        assert "Deployment shop-api exists and belongs to somebody else" in cluster.condition("Degraded")["message"]
        assert cluster.get(DEPLOYMENT, "shop-api") == made
        await until(lambda: "shop-worker" in deployments(cluster))


async def test_a_cluster_made_again_at_once_gets_children_and_a_status_of_its_own(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        cluster.delete(CLUSTER, "shop")
        second = cluster.create(workers=MANUAL)
        uid = second["metadata"]["uid"]

        def all_of_the_second() -> bool:
            cluster.end_jobs()
            cluster.get_ready()
            owners = {
                reference["uid"]
                for kind in (DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, JOB)
                for body in cluster.all_of(kind)
                for reference in body["metadata"]["ownerReferences"]
            }
            return owners == {uid} and len(deployments(cluster)) == 3 and cluster.is_so("Ready", "True")

        await until(all_of_the_second)


async def test_a_deleted_cluster_goes_at_once_with_and_without_an_operator(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    cluster.create(workers=MANUAL)
    cluster.create("other", workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace) as operator:
        await roll_out(cluster)
        await roll_out(cluster, "other")
        cluster.delete(CLUSTER, "shop")
        assert cluster.get(CLUSTER, "shop") is None
        scaler = operator.scalers[Place(cluster.namespace, "shop")][-1]
        await until(lambda: scaler.closed)
    cluster.delete(CLUSTER, "other")
    assert cluster.get(CLUSTER, "other") is None


async def test_pods_that_cannot_run_are_told_with_what_to_do(cluster: Cluster, kubernetes: KubernetesApi) -> None:
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        labels = deployments(cluster)["shop-worker"]["spec"]["template"]["metadata"]["labels"]
        waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
        container = {
            "name": "worker",
            "image": "example.com/taskflow:1.0",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        status = {"phase": "Pending", "containerStatuses": [container | {"state": {"waiting": waiting}}]}
        cluster.pod("shop-worker-1", labels, status)
        await until(lambda: cluster.is_so("Degraded", "True", "ImagePullFailed"))
        assert "example.com/taskflow:1.0 cannot be pulled" in cluster.condition("Degraded")["message"]
        refusal = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": "exceeded quota: team",
        }
        cluster.patch(DEPLOYMENT, "shop-api", {"status": {"conditions": [refusal]}}, sub="status")
        await until(lambda: cluster.is_so("Degraded", "True", "QuotaExceeded"))
        assert cluster.is_so("Ready", "True")


async def test_a_manifest_that_the_api_server_refuses_is_told_and_mended_by_the_next_spec(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    tolerations = [{"key": "a", "operator": "Sometimes"}]
    cluster.create(workers=MANUAL | {"podTemplate": {"tolerations": tolerations}})
    async with running_operator(kubernetes, cluster.namespace):

        def refused() -> bool:
            cluster.end_jobs()
            return cluster.is_so("Degraded", "True", "Refused")

        await until(refused)
        assert "Deployment shop-worker" in cluster.condition("Degraded")["message"]
        assert "Sometimes" in cluster.condition("Degraded")["message"]
        cluster.patch(CLUSTER, "shop", {"spec": {"workers": {"podTemplate": {"tolerations": []}}}})
        await roll_out(cluster)


async def test_a_pool_that_is_taken_away_drains_before_its_deployment_goes(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    def slow() -> int | None:
        found = deployments(cluster).get("shop-worker-slow")
        return None if found is None else int(found["spec"]["replicas"])

    cluster.create(workers=MANUAL, extraPools=[MANUAL | {"name": "slow", "queues": ["slow"], "replicas": 2}])
    async with running_operator(kubernetes, cluster.namespace) as operator:
        await roll_out(cluster)
        await until(lambda: slow() == 2)
        cluster.patch(CLUSTER, "shop", {"spec": {"extraPools": []}})
        await until(lambda: slow() is None)
        views = [view for made in operator.scalers.values() for scaler in made for view in scaler.views]
        assert [view.target for view in views if view.name == "slow"][-1] == 0, "its workers were asked to drain"
        assert "shop-worker" in deployments(cluster)


async def test_suspend_drains_first_and_resume_brings_everything_back(
    cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    cluster.create(workers=MANUAL | {"replicas": 3})
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        await until(lambda: deployments(cluster)["shop-worker"]["spec"]["replicas"] == 3)
        cluster.patch(CLUSTER, "shop", {"spec": {"suspend": True}})
        await until(lambda: cluster.is_so("Suspended", "True"))
        assert {body["spec"]["replicas"] for body in deployments(cluster).values()} == {0}
        cluster.patch(CLUSTER, "shop", {"spec": {"suspend": False}})
        await roll_out(cluster)
        wanted = {"shop-api": 2, "shop-scheduler": 1, "shop-worker": 3}
        await until(lambda: {name: body["spec"]["replicas"] for name, body in deployments(cluster).items()} == wanted)


async def test_a_paused_cluster_is_left_alone_until_it_is_resumed(cluster: Cluster, kubernetes: KubernetesApi) -> None:
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        cluster.patch(CLUSTER, "shop", {"metadata": {"annotations": {"taskflow.io/paused": "true"}}})
        await until(lambda: cluster.is_so("Paused", "True"))
        cluster.delete(SERVICE, "shop-api")
        cluster.patch(CLUSTER, "shop", {"spec": {"api": {"replicas": 4}}})
        await until(lambda: (cluster.get(CLUSTER, "shop") or {})["status"]["observedGeneration"] == 2)
        assert cluster.get(SERVICE, "shop-api") is None
        cluster.patch(CLUSTER, "shop", {"metadata": {"annotations": {"taskflow.io/paused": None}}})
        await until(lambda: cluster.get(SERVICE, "shop-api"))
        await until(lambda: deployments(cluster)["shop-api"]["spec"]["replicas"] == 4)
