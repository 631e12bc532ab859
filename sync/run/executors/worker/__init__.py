"""Code on a worker: `children` and `plugin` run in its own process, the rest in its child processes."""
