"""Model folders: weights both ways, bundles, cards."""
