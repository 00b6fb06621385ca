"""Images from files to batches: sources, decoding, preprocessing, augmentation, checks."""
