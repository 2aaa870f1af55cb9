"""The commands, such as train, evaluate and demo. No other package imports this one."""
