"""An opened pipeline: connectors, plan, and the destination opened for reading."""
