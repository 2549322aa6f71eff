"""`rlhf data check`: a report on data files before anything is trained on them."""
