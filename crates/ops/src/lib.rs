//! Fused CPU operations with their own backward passes.
