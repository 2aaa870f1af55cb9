"""The apps: train, evaluate, demo and the command line. Nothing imports this package."""
