"""What a server answers over HTTP: pages for people, an API for programs. Reads and writes the run store alone."""
