"""Sets of values that people install with, from the least to everything at once."""

from typing import Any

Values = dict[str, Any]

DIGEST = "sha256:" + "0123456789abcdef" * 4
OWN_SECRETS: Values = {
    "enabled": True,
    "database": {"existingSecret": "db", "key": "dsn"},
    "redis": {"existingSecret": "cache"},
    "auth": {"existingSecret": "keys"},
}
POOLS: Values = {
    "api": {"replicas": 3, "service": {"type": "NodePort", "port": 8080}, "pdb": {"enabled": False}},
    "workers": {
        "concurrency": 8,
        "resources": {"requests": {"cpu": 1, "memory": "256Mi"}},
        "env": [{"name": "TASKFLOW_LOG_LEVEL", "value": "debug"}],
        "autoscaling": {"minReplicas": 0, "maxReplicas": 40, "latencySLOSeconds": 30},
        "podTemplate": {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"pool": "workers"}},
    },
    "extraPools": [{"name": "slow", "queues": ["reports"]}],
}
MONITORS: Values = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podMonitor": {"enabled": True, "intervalSeconds": 15},
    "prometheusRule": {"enabled": True, "docsUrl": "https://example.com/taskflow/", "labels": {"role": "alerts"}},
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "TaskFlow"}},
}
EVERYTHING: Values = {
    "fullnameOverride": "tf",
    "commonLabels": {"team": "shop"},
    "image": {"repository": "registry.example.com/taskflow/platform", "digest": DIGEST},
    "imagePullSecrets": [{"name": "registry"}],
    "operator": {
        "replicas": 2,
        "image": {"tag": "0.1.0", "digest": DIGEST},
        "env": [{"name": "TASKFLOW_LOG_FORMAT", "value": "console"}],
        "podLabels": {"side": "car"},
        "podAnnotations": {"note": "one"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
             "labelSelector": {"matchLabels": {"side": "car"}}}
        ],
        "serviceAccount": {"name": "robot", "annotations": {"role": "tf"}},
    },
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "system-cluster-critical",
    "cluster": {"enabled": True, "name": "shop", "annotations": {"taskflow.io/force-active": "true"}, "spec": POOLS},
    "development": {"enabled": True, "persistence": {"enabled": True, "size": "5Gi", "storageClassName": "fast"}},
    "networkPolicy": {
        "enabled": True,
        "apiFrom": [{"namespaceSelector": {"matchLabels": {"ingress": "true"}}}],
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    },
    "monitoring": MONITORS,
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-text'}\n",
    ],
}  # fmt: skip
SETS: dict[str, Values] = {
    "defaults": {},
    "a platform with Secrets of one's own": {"cluster": OWN_SECRETS},
    "a platform to try out": {"cluster": {"enabled": True}, "development": {"enabled": True}},
    "a database of one's own beside a development Valkey": {
        "cluster": {"enabled": True, "database": {"existingSecret": "db"}},
        "development": {"enabled": True},
    },
    "one namespace alone": {
        "watchNamespaces": ["chart"],
        "crds": {"install": False},
        "cluster": {"enabled": True},
        "development": {"enabled": True},
    },
    "no operator": {"operator": {"enabled": False}, "cluster": OWN_SECRETS},
    "roles made by somebody else": {
        "rbac": {"create": False},
        "operator": {"serviceAccount": {"create": False, "name": "robot"}},
    },
    "closed networks": {
        "cluster": {"enabled": True},
        "development": {"enabled": True},
        "networkPolicy": {"enabled": True, "outside": False},
    },
    "monitors": {"monitoring": MONITORS},
    "everything": EVERYTHING,
}
