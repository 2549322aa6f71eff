"""The reward model, on comparisons or judgements, from the SFT model or a base of its own; and DPO, on the same pairs."""
