"""Parts shared by the stages that compose a Hugging Face trainer: arguments, training, checkpoints."""
