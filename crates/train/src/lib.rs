//! One trainer; one file an objective.
