"""Text: documents, tokenizers, shards and packings. No torch here."""
