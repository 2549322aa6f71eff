"""The reward model: trained on comparisons or judgements, on the SFT model or on a base of its own."""
