//! Purifiers: defences that act at inference.
