"""The human loop: tasks, a store of labels, the label page, agreement, pairs, exchange formats."""
