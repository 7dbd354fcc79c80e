"""A webhook that the API server asks before it changes a pod: the moment to do something to whoever asked for that."""

import base64
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trustme

from cluster.world import Cluster
from http_server import Answer, Asked, serving
from taskflow_operator.kinds import POD
from waiting import eventually

PATH = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
JSON = {"Content-Type": "application/json"}


@contextmanager
def admission(cluster: Cluster, *, user: str, on_update: Callable[[], None]) -> Iterator[None]:
    """Call `on_update` in the midst of each change of a pod in the namespace that the user asks for; allow them all."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    def answer(asked: Asked) -> Answer:
        request = json.loads(asked.body)["request"]
        if request["userInfo"]["username"] == user:
            on_update()
        response = {"uid": request["uid"], "allowed": True}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        return Answer(body=json.dumps(review).encode(), headers=JSON)

    with serving(answer, tls=tls) as server:
        webhook = {
            "name": "pods.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 10,
            "failurePolicy": "Ignore",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["UPDATE"]}],
            "clientConfig": {
                "url": f"https://127.0.0.1:{server.port}/",
                "caBundle": base64.b64encode(authority.cert_pem.bytes()).decode(),
            },
        }
        cluster.post(PATH, {"metadata": {"name": cluster.namespace}, "webhooks": [webhook]})
        pod = cluster.all_of(POD)[0]["metadata"]["name"]

        def is_asked() -> bool:
            cluster.patch(POD, pod, {"metadata": {"annotations": {"example.com/asked": str(len(server.asked))}}})
            return bool(server.asked)

        try:
            eventually(is_asked)
            yield
        finally:
            cluster.client.delete(f"{PATH}/{cluster.namespace}")
