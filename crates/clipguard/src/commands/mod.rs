//! One file a command: its arguments with their help, and what it does.

pub(crate) mod attack;
pub(crate) mod classify;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod demo;
pub(crate) mod embed;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod merge;
pub(crate) mod methods;
pub(crate) mod purify;
pub(crate) mod report;
pub(crate) mod train;
