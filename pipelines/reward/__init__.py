"""The reward model: on comparisons or judgements, from the SFT model or its own base. And DPO, on the same pairs."""
