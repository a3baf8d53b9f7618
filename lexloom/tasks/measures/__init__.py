"""What a language model is measured by without being fine-tuned: one measure a file."""
