"""Options of one run that change its plan: start positions, deletes and fills."""
