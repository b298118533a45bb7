//! One prompt template, and sets of them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{PromptError, check_printable, digest, file};

/// A prompt with one or more places for the class name, such as `a photo of a {}.`
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    /// As written, with every place spelled `{}`.
    text: String,
}

impl Template {
    /// Reads a template. Places for the class name are `{}` or `{c}`; other braces are text,
    /// except that a word in braces (`{name}`, `{0}`) is refused as a probable mistake.
    ///
    /// # Errors
    /// No place, an unknown one, or a control character.
    pub fn new(text: &str) -> Result<Self, PromptError> {
        check_printable(text)?;
        let canonical = text.replace("{c}", "{}");
        if let Some(found) = unknown_placeholder(&canonical) {
            return Err(PromptError::UnknownPlaceholder {
                template: text.to_owned(),
                found: found.to_owned(),
            });
        }
        if !canonical.contains("{}") {
            return Err(PromptError::NoPlaceholder { template: text.to_owned() });
        }
        Ok(Self { text: canonical })
    }

    /// The prompt for one class; `name` is inserted literally, braces and all.
    pub fn fill(&self, name: &str) -> String {
        self.text.replace("{}", name)
    }

    /// The prompt about nothing: the empty name inserted, spaces left as they are
    /// (`a photo of a .`). CLIPure measures its likelihood against the mean of these
    /// (Zhang et al. 2025, section 3.2; this spelling is that of its released code).
    pub fn blank(&self) -> String {
        self.fill("")
    }

    /// The template with every place spelled `{}`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The first `{word}` of a template.
fn unknown_placeholder(text: &str) -> Option<&str> {
    text.match_indices('{').find_map(|(at, _)| {
        let word = text[at + 1..].find(|c: char| !c.is_alphanumeric() && c != '_')?;
        let end = at + 1 + word;
        (word > 0 && text[end..].starts_with('}')).then(|| &text[at..=end])
    })
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Template {
    type Err = PromptError;

    fn from_str(text: &str) -> Result<Self, PromptError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Template {
    type Error = PromptError;

    fn try_from(text: String) -> Result<Self, PromptError> {
        Self::new(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

/// Templates whose text embeddings are averaged into one classifier; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSet {
    name: String,
    templates: Vec<Template>,
}

impl TemplateSet {
    /// A set of templates under a name of your choice.
    ///
    /// # Errors
    /// If there is no template. (The same template twice is allowed: it counts twice.)
    pub fn new(name: impl Into<String>, templates: Vec<Template>) -> Result<Self, PromptError> {
        match templates.is_empty() {
            true => Err(PromptError::Empty { what: "template" }),
            false => Ok(Self { name: name.into(), templates }),
        }
    }

    /// Reads templates, one a line. Blank lines and lines that begin with `#` are skipped,
    /// space at the ends of a line is dropped.
    ///
    /// # Errors
    /// No template at all, or a bad one, with its line.
    pub fn parse(name: impl Into<String>, text: &str) -> Result<Self, PromptError> {
        let templates = file::lines(text)
            .map(|(line, text)| Template::new(text).map_err(|error| file::at("line", line, error)))
            .collect::<Result<_, _>>()?;
        Self::new(name, templates)
    }

    /// [`parse`](Self::parse)s a file, whose stem (`mine` of `mine.txt`) becomes the name.
    ///
    /// # Errors
    /// As `parse`, with the path; also if the file cannot be read, is not UTF-8, or larger
    /// than 16 MiB.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PromptError> {
        file::read(path.as_ref(), |name, text| Self::parse(name, text))
    }

    /// The name, for records and messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The templates in their order, at least one.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// How many templates there are, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// All prompts for one class.
    pub fn prompts(&self, class_name: &str) -> impl Iterator<Item = String> {
        self.templates.iter().map(move |template| template.fill(class_name))
    }

    /// All prompts about nothing, see [`Template::blank`].
    pub fn blanks(&self) -> impl Iterator<Item = String> {
        self.templates.iter().map(Template::blank)
    }

    /// SHA-256 in hex over the templates, spelled with `{}`, one a line: what `sha256sum` says
    /// about such a file. The name does not count, the order does.
    pub fn digest(&self) -> String {
        digest(self.templates.iter().map(Template::as_str))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_inserted_literally() {
        let template = Template::new("a {c} and {} in {braces of {").unwrap();
        assert_eq!(template.fill("{c}{}{x}"), "a {c}{}{x} and {c}{}{x} in {braces of {");
        assert_eq!(template.as_str(), "a {} and {} in {braces of {");
    }

    #[test]
    fn the_blank_prompt_keeps_its_spacing() {
        assert_eq!(Template::new("a photo of a {}.").unwrap().blank(), "a photo of a .");
        assert_eq!(Template::new("  the {} ").unwrap().blank(), "  the  ");
    }

    #[test]
    fn bad_templates_are_refused() {
        let error = |text: &str| Template::new(text).unwrap_err().to_string();
        assert!(error("a photo").contains("no place"));
        assert!(error("").contains("no place"));
        assert!(error("a {name}").contains("`{name}`"));
        assert!(error("a {} {0}").contains("`{0}`"));
        assert!(error("a {}\n").contains("control"));
    }

    #[test]
    fn a_set_skips_comments_and_names_lines() {
        let set = TemplateSet::parse("mine", "\u{feff}# c\r\n\r\n a {} \r\nthe {c}").unwrap();
        let texts: Vec<_> = set.templates().iter().map(Template::as_str).collect();
        assert_eq!(texts, ["a {}", "the {}"]);
        let error = TemplateSet::parse("mine", "a {}\n\nno\n").unwrap_err().to_string();
        assert!(error.starts_with("line 3: "), "{error}");
        assert!(TemplateSet::parse("mine", "# nothing\n").is_err());
    }

    #[test]
    fn the_digest_is_that_of_the_plain_file() {
        let set = TemplateSet::parse("mine", "a {c}\n# no\nthe {}\n").unwrap();
        let same = TemplateSet::parse("other", "a {}\nthe {}").unwrap();
        assert_eq!(set.digest(), same.digest());
        // printf 'a {}\nthe {}\n' | sha256sum
        assert_eq!(
            set.digest(),
            "8079b27c1b0ae7dd3110863ac254983a3a22bb2e38365743270283a9710bced4"
        );
    }

    #[test]
    fn a_template_is_a_string_in_a_plan() {
        let template: Template = serde_json::from_str("\"a {c}.\"").unwrap();
        assert_eq!(serde_json::to_string(&template).unwrap(), "\"a {}.\"");
        assert!(serde_json::from_str::<Template>("\"a\"").is_err());
    }
}
