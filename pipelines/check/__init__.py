"""`rlhf data check`: what is in data files, before anything is trained on them."""
