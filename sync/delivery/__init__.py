"""The engine's side of callbacks: who is told what, and what a hook needs from the engine."""
