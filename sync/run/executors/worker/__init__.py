"""What runs on a worker: in its own process `children` and `plugin`, in the child processes below it the others."""
