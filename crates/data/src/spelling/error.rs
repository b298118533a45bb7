//! What can be wrong with a spelling, and what may have been meant.

/// Why a spelling names no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpellingError {
    /// Not of the form `name:key=value,key=value`.
    #[error("`{text}`: {what}; expected name:key=value,key=value")]
    Malformed {
        /// What was written.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key written twice.
    #[error("{method}: `{key}` is set twice")]
    Repeated {
        /// The method's name.
        method: String,
        /// The key.
        key: String,
    },
    /// No method has this name.
    #[error("there is no {kind} called `{name}`{hint}")]
    Name {
        /// What was looked for: "attack", "purifier".
        kind: &'static str,
        /// What was written.
        name: String,
        /// The closest known name, or all of them.
        hint: String,
    },
    /// The method has no such setting.
    #[error("{method} has no setting `{key}`{hint}")]
    Key {
        /// The method's name.
        method: String,
        /// What was written.
        key: String,
        /// The closest known key, or all of them.
        hint: String,
    },
    /// A value that does not fit its setting.
    #[error("{method}: {key}={value}: {reason}")]
    Value {
        /// The method's name.
        method: String,
        /// The setting.
        key: String,
        /// What was written.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// "; did you mean `x`?" when a known word is close, else the list of them.
pub(super) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    // Jaro-Winkler misses swapped letters in short words, an edit distance misses cut-off words.
    let likeness = |other: &str| match strsim::osa_distance(word, other) <= 1 {
        true => strsim::jaro_winkler(word, other).max(0.9),
        false => strsim::jaro_winkler(word, other),
    };
    match known.iter().map(|k| (likeness(k), k)).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, closest)) if likeness > 0.75 => format!("; did you mean `{closest}`?"),
        Some(_) => format!("; known: {}", known.join(", ")),
        None => "; it has none".to_owned(),
    }
}
