"""The engine's side of callbacks: subscriptions, hooks, and the callbacks that the pipeline file defines now."""
