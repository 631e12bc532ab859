"""What connectors share that are programs of somebody else: environments, processes, records as lines of JSON."""
