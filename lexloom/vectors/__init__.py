"""Word vectors: word2vec by kernels of its own, over a text on disk; files of vectors."""
