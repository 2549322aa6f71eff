"""The work: data, models, stages. Never imports rlhf_cli."""
