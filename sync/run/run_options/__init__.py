"""Options of one run that change its plan: where streams start, what they delete and what they fill."""
