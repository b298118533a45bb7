//! Evasion attacks: norms, the descent skeleton, one file an attack.
