"""Models, tokenizers and adapters: loading, scoring, sampling, publishing. No training code."""
