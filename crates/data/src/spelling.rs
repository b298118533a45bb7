//! How a method and its settings are written: `name:key=value,key=value`.
//!
//! Attacks, purifiers, triggers and objectives are all chosen by the same short text, on the
//! command line as in plans and records. The text is a [`Spelling`]; the settings of a method are
//! a struct declared with [`parameters!`](crate::parameters), which carries the documentation and
//! the default of each setting, so that `clipguard methods`, the parser, the records and the error
//! messages all read from one declaration.
//!
//! ```
//! use clipguard_data::{parameters, spelling::{Parameters, Spelling}};
//!
//! parameters! {
//!     /// Settings of an example.
//!     pub struct Example {
//!         /// Radius of the budget, in pixel units.
//!         eps: f32 = 8.0 / 255.0,
//!         /// Number of steps.
//!         steps: usize = 10,
//!     }
//! }
//! let spelling: Spelling = "example:eps=4/255".parse()?;
//! let example: Example = spelling.read()?;
//! assert_eq!(example, Example { eps: 4.0 / 255.0, steps: 10 });
//! assert_eq!(example.spelled("example").to_string(), "example:eps=4/255,steps=10");
//! # Ok::<(), clipguard_data::spelling::SpellingError>(())
//! ```

mod error;
mod text;

use std::{fmt, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};

pub use error::SpellingError;
use error::hint;
pub use text::{number, written};

/// Declares the settings of a method: a struct whose fields all have a documented default.
///
/// The struct gets `Clone`, `Debug`, `PartialEq`, `Default`, serde's traits (keys in kebab case,
/// missing keys take their default, unknown keys are errors) and [`spelling::Parameters`].
///
/// [`spelling::Parameters`]: crate::spelling::Parameters
#[macro_export]
macro_rules! parameters {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        $vis struct $name { $($(#[doc = $doc])+ pub $field: $kind,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::spelling::Parameters for $name {
            const DOCS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), concat!($($doc),+)),)*];
        }
    };
}

/// The settings of a method; declared with [`parameters!`](crate::parameters).
pub trait Parameters: Serialize + DeserializeOwned + Default {
    /// Field name and documentation of each setting, in the order of declaration.
    const DOCS: &'static [(&'static str, &'static str)];

    /// What `clipguard methods` prints.
    fn list() -> Vec<Parameter> {
        let defaults = Self::default().spelled("");
        let row = |(field, doc): &(&str, &str)| {
            let key = field.replace('_', "-");
            let default = defaults.get(&key).unwrap_or_default().to_owned();
            Parameter { key, default, doc: doc.trim().to_owned() }
        };
        Self::DOCS.iter().map(row).collect()
    }

    /// These settings under the method's name, each one written out.
    fn spelled(&self, name: &str) -> Spelling {
        Spelling { name: name.to_owned(), settings: text::settings(self) }
    }
}

/// One setting of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As written before the `=`.
    pub key: String,
    /// As written behind the `=`.
    pub default: String,
    /// What it means, with unit and range.
    pub doc: String,
}

/// An entry of a catalogue of methods; `Build` makes the method from its spelling.
#[derive(Clone, Copy, Debug)]
pub struct Method<Build> {
    /// The name in front of the colon.
    pub name: &'static str,
    /// One line on what it does.
    pub about: &'static str,
    /// The publication or program it follows.
    pub source: &'static str,
    /// Its settings.
    pub parameters: fn() -> Vec<Parameter>,
    /// Makes the method.
    pub build: Build,
}

/// The entry called `name` in a catalogue of methods of a `kind` ("attack", "purifier").
///
/// # Errors
/// [`SpellingError::Name`] with the closest name when there is none.
pub fn find<'a, Build>(
    kind: &'static str,
    catalogue: &'a [Method<Build>],
    name: &str,
) -> Result<&'a Method<Build>, SpellingError> {
    catalogue.iter().find(|method| method.name == name).ok_or_else(|| SpellingError::Name {
        kind,
        name: name.to_owned(),
        hint: hint(name, catalogue.iter().map(|method| method.name)),
    })
}

/// A method's name and the settings that differ from its defaults, as written by the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    name: String,
    settings: Vec<(String, String)>,
}

impl Spelling {
    /// A spelling from its parts. `_` in keys counts as `-`.
    ///
    /// # Errors
    /// [`SpellingError::Repeated`] when a key comes twice.
    pub fn new(
        name: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SpellingError> {
        let mut spelling = Self { name: name.to_owned(), settings: Vec::new() };
        for (key, value) in settings {
            let key = key.replace('_', "-");
            if spelling.get(&key).is_some() {
                return Err(SpellingError::Repeated { method: name.to_owned(), key });
            }
            spelling.settings.push((key, value));
        }
        Ok(spelling)
    }

    /// The method's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings, in the order written.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// The value written for `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The settings as a parameter struct; what is not written takes its default.
    ///
    /// Numbers may be fractions (`8/255`); they are evaluated in f64 and rounded once. `none` and
    /// `auto` stand for an absent optional value; a list is written `a+b+c`.
    ///
    /// # Errors
    /// [`SpellingError::Key`] with the closest key for an unknown one, and
    /// [`SpellingError::Value`] for a value that does not fit.
    pub fn read<P: Parameters>(&self) -> Result<P, SpellingError> {
        let known: Vec<String> = P::DOCS.iter().map(|(key, _)| key.replace('_', "-")).collect();
        for (key, _) in &self.settings {
            if !known.contains(key) {
                return Err(SpellingError::Key {
                    method: self.name.clone(),
                    key: key.clone(),
                    hint: hint(key, known.iter().map(String::as_str)),
                });
            }
        }
        text::read(&self.settings).map_err(|mismatch| SpellingError::Value {
            method: self.name.clone(),
            key: mismatch.key,
            value: mismatch.value,
            reason: mismatch.reason,
        })
    }

    /// Refuses the first setting whose condition does not hold: key, condition, what would be right.
    ///
    /// # Errors
    /// That setting with its value.
    pub fn demand<const N: usize>(
        &self,
        checks: [(&str, bool, &str); N],
    ) -> Result<(), SpellingError> {
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, reason)) => Err(self.refuse(key, reason)),
            None => Ok(()),
        }
    }

    /// The error for a value that can be read but lies outside its range.
    pub fn refuse(&self, key: &str, reason: impl Into<String>) -> SpellingError {
        SpellingError::Value {
            method: self.name.clone(),
            key: key.to_owned(),
            value: self.get(key).unwrap_or("default").to_owned(),
            reason: reason.into(),
        }
    }
}

impl FromStr for Spelling {
    type Err = SpellingError;

    fn from_str(text: &str) -> Result<Self, SpellingError> {
        let malformed = |what| SpellingError::Malformed { text: text.to_owned(), what };
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        if name.trim().is_empty() {
            return Err(malformed("there is no name in front of the colon"));
        }
        let mut settings = Vec::new();
        for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) =
                part.split_once('=').ok_or_else(|| malformed("a setting is written key=value"))?;
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        Self::new(name.trim(), settings)
    }
}

impl fmt::Display for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, (key, value)) in self.settings.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Shape {
        Round,
        VeryFlat,
    }

    parameters! {
        /// A struct with every kind of value.
        struct Every {
            /// A radius,
            /// in two lines.
            eps: f32 = 8.0 / 255.0,
            /// A double.
            wide: f64 = 0.1,
            /// A count.
            many_steps: usize = 10,
            /// An optional number.
            alpha: Option<f32> = None,
            /// A choice.
            shape: Shape = Shape::Round,
            /// A switch.
            force: bool = false,
            /// A list.
            sizes: Vec<u32> = vec![1, 2],
        }
    }

    fn read(text: &str) -> Result<Every, SpellingError> {
        text.parse::<Spelling>()?.read()
    }

    #[test]
    fn what_is_not_written_takes_its_default() {
        assert_eq!(read("every").unwrap(), Every::default());
        let text = "every: eps=4/255, many_steps=3,alpha=1e-3,shape=very-flat,force=true,sizes=7+8";
        let expected = Every {
            eps: 4.0 / 255.0,
            wide: 0.1,
            many_steps: 3,
            alpha: Some(1e-3),
            shape: Shape::VeryFlat,
            force: true,
            sizes: vec![7, 8],
        };
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("every:alpha=none").unwrap(), Every::default());
    }

    #[test]
    fn a_struct_is_spelled_out_and_read_back() {
        let spelled = Every::default().spelled("every");
        let text = "every:eps=8/255,wide=0.1,many-steps=10,alpha=none,shape=round,force=false,\
                    sizes=1+2";
        assert_eq!(spelled.to_string(), text);
        assert_eq!(read(text).unwrap(), Every::default());
        let odd = Every { eps: 0.017_3, wide: 1.0 / 3.0, alpha: Some(16.0), ..Every::default() };
        assert_eq!(odd.spelled("x").read::<Every>().unwrap(), odd);
    }

    #[test]
    fn every_fraction_of_255_is_exact() {
        for k in 0..=255 {
            let eps = read(&format!("every:eps={k}/255,wide={k}/255")).unwrap();
            assert_eq!(eps.eps, (f64::from(k) / 255.0) as f32);
            assert_eq!(eps.wide, f64::from(k) / 255.0);
        }
    }

    #[test]
    fn the_list_carries_keys_defaults_and_documentation() {
        let list = Every::list();
        assert_eq!(list[0].key, "eps");
        assert_eq!(list[0].default, "8/255");
        assert_eq!(list[0].doc, "A radius, in two lines.");
        assert_eq!((list[2].key.as_str(), list[2].default.as_str()), ("many-steps", "10"));
    }

    #[test]
    fn mistakes_are_named_with_the_closest_word() {
        let say = |text| read(text).unwrap_err().to_string();
        assert_eq!(say("every:epz=1"), "every has no setting `epz`; did you mean `eps`?");
        assert!(say("every:qqqq=1").contains("known: eps, wide, many-steps"));
        assert_eq!(
            say("every:eps=fast"),
            "every: eps=fast: expected a number such as 0.5 or 8/255"
        );
        assert_eq!(say("every:eps=1/0"), "every: eps=1/0: expected a number such as 0.5 or 8/255");
        assert!(say("every:many-steps=-1").contains("many-steps=-1: expected a whole number"));
        assert!(say("every:shape=flat").contains("shape=flat: unknown variant `flat`, expected"));
        assert!(say("every:eps=1,eps=2").contains("set twice"));
        assert!(say("every:eps").contains("key=value"));
        assert!(say(":eps=1").contains("no name"));
        let none: [Method<()>; 0] = [];
        assert!(find("attack", &none, "pgd").unwrap_err().to_string().contains("`pgd`"));
    }
}
