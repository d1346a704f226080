"""The chart on a real Kubernetes: ``make cluster`` starts one for them."""
