"""What the stages trained by a Hugging Face trainer share."""
