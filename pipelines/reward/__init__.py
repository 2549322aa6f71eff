"""The reward model: on comparisons or judgements, from the SFT model or a base of its own. And DPO, on the same pairs."""
