"""The human loop: completions, a store of labels, the label page, agreement, rankings to pairs, exchange formats."""
