"""A real Kubernetes of one node, in namespaces of its own, for the chart."""
