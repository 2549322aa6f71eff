"""Alarms: symptoms of a PPO run that goes wrong, read from its metrics. Pure Python."""
