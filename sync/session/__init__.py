"""An opened pipeline: its connectors, its plan, and its destination read back."""
