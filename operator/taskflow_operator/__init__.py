"""The Kubernetes operator: one TaskFlowCluster is one platform."""
