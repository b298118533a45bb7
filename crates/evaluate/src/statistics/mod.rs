//! How sure a number is: intervals of shares, and two systems on the same samples.

pub mod compare;
pub mod interval;
