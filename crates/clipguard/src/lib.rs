//! clipguard makes CLIP-style models trustworthy: from the training data to the running classifier.
