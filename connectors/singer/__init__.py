"""Singer both ways: any tap or target as a connector, and any connector as a tap or target."""
