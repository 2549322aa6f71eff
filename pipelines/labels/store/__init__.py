"""The label store: one SQLite file with questions, tasks, annotators and every answer that was ever given."""
