"""Other people's plugins, object stores and servers, and installations: `make interop` runs them and prints a list."""
