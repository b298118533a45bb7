//! The sets and lists that published numbers use.
//!
//! The files are those of CLIP_benchmark as they are, and a few more sets in the same form;
//! `assets/text/README.md` says where each comes from.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::{ClassList, PromptError, Template, TemplateSet};

const TEMPLATES: &str =
    include_str!("../../../../assets/text/en_zeroshot_classification_templates.json");
const CLASS_NAMES: &str = include_str!("../../../../assets/text/en_classnames.json");
const OURS: &str = include_str!("../../../../assets/text/prompts.json");

/// Other names under which people know a set or list; the left one is looked up.
const ALIASES: [(&str, &str); 7] = [
    ("imagenet", "imagenet1k"),
    ("imagenet_1k", "imagenet1k"),
    ("imagenet80", "imagenet1k"),
    ("imagenetv2", "imagenet1k"),
    ("imagenet_sketch", "imagenet1k"),
    ("flowers102", "flowers"),
    ("oxford_pets", "pets"),
];

static TEMPLATE_SETS: LazyLock<Vec<TemplateSet>> = LazyLock::new(|| {
    let read = |(name, texts): (String, Vec<String>)| {
        let templates = texts.iter().map(|text| Template::new(text)).collect::<Result<_, _>>();
        #[expect(clippy::expect_used, reason = "embedded at build time; a test reads them all")]
        templates.and_then(|templates| TemplateSet::new(name, templates)).expect("built-in set")
    };
    let ours = entries(object(OURS).remove("templates"));
    entries(Some(Value::Object(object(TEMPLATES)))).into_iter().chain(ours).map(read).collect()
});

static CLASS_LISTS: LazyLock<Vec<ClassList>> = LazyLock::new(|| {
    let ours = entries(object(OURS).remove("class_names"));
    let all = entries(Some(Value::Object(object(CLASS_NAMES)))).into_iter().chain(ours);
    all.map(|(name, names)| ClassList::published(name, names)).collect()
});

fn object(json: &str) -> Map<String, Value> {
    #[expect(clippy::expect_used, reason = "embedded at build time; a test reads them all")]
    serde_json::from_str(json).expect("built-in prompts")
}

fn entries(value: Option<Value>) -> Vec<(String, Vec<String>)> {
    #[expect(clippy::expect_used, reason = "embedded at build time; a test reads them all")]
    value
        .and_then(|value| serde_json::from_value::<Map<String, Value>>(value).ok())
        .expect("built-in prompts")
        .into_iter()
        .map(|(name, list)| (name, serde_json::from_value(list).expect("built-in prompts")))
        .collect()
}

/// A built-in template set, by CLIP_benchmark's name for the data set: `imagenet1k` (80
/// templates), `cifar10` (18), `caltech101` (34), ...; besides `imagenet7` (the short list for
/// ImageNet), `simple` (`a photo of a {}.`) and `scenes` (four plain ones for generated
/// scenes). Case, `-` and `_` do not matter.
///
/// # Errors
/// [`PromptError::Unknown`] with the nearest name.
pub fn templates(name: &str) -> Result<&'static TemplateSet, PromptError> {
    find("template set", name, &TEMPLATE_SETS, TemplateSet::name)
}

/// A built-in list of class names, by CLIP_benchmark's name for the data set: `imagenet1k`
/// (OpenAI's 1000 wordings), `cifar10`, `cifar100`, `caltech101`, `mnist`, ...;
/// `cifar10_clipure` has the wordings of CLIPure's code (`plane`, `car`).
///
/// Published lists are given as published: `imagenet1k` holds `missile` and `sunglasses` twice
/// and `clevr_closest_object_distance` an empty name. Case, `-` and `_` do not matter.
///
/// # Errors
/// [`PromptError::Unknown`] with the nearest name.
pub fn class_names(name: &str) -> Result<&'static ClassList, PromptError> {
    find("class list", name, &CLASS_LISTS, ClassList::name)
}

/// The names of all built-in template sets.
pub fn template_set_names() -> impl Iterator<Item = &'static str> {
    TEMPLATE_SETS.iter().map(TemplateSet::name)
}

/// The names of all built-in class lists.
pub fn class_list_names() -> impl Iterator<Item = &'static str> {
    CLASS_LISTS.iter().map(ClassList::name)
}

fn find<T>(
    what: &'static str,
    asked: &str,
    all: &'static [T],
    name: fn(&T) -> &str,
) -> Result<&'static T, PromptError> {
    let key = key(asked);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == key).map(|&(_, name)| name);
    let found = all.iter().find(|item| name(item) == key);
    found.or_else(|| all.iter().find(|item| Some(name(item)) == alias)).ok_or_else(|| {
        let near = |known: &&str| strsim::normalized_damerau_levenshtein(known, &key);
        let suggestion = all
            .iter()
            .map(name)
            .max_by(|a, b| near(a).total_cmp(&near(b)))
            .filter(|known| near(known) >= 0.5);
        let known = all.iter().map(name).collect::<Vec<_>>().join(", ");
        PromptError::Unknown { what, name: asked.to_owned(), suggestion, known }
    })
}

fn key(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sets_have_their_published_sizes() {
        for (name, size) in [
            ("imagenet1k", 80),
            ("imagenet7", 7),
            ("cifar10", 18),
            ("cifar100", 18),
            ("caltech101", 34),
            ("cars", 8),
            ("dtd", 8),
            ("svhn", 6),
            ("fer2013", 6),
            ("country211", 5),
            ("resisc45", 4),
            ("gtsrb", 3),
            ("eurosat", 3),
            ("sun397", 2),
            ("simple", 1),
            ("scenes", 4),
            ("mnist", 1),
        ] {
            assert_eq!(templates(name).unwrap().len(), size, "{name}");
        }
        for (name, size) in [
            ("imagenet1k", 1000),
            ("cifar10", 10),
            ("cifar10_clipure", 10),
            ("cifar100", 100),
            ("caltech101", 102),
            ("mnist", 10),
            ("svhn", 10),
            ("gtsrb", 43),
            ("stl10", 10),
            ("country211", 211),
            ("flowers", 102),
            ("pets", 37),
            ("eurosat", 10),
        ] {
            assert_eq!(class_names(name).unwrap().len(), size, "{name}");
        }
    }

    #[test]
    fn only_the_published_oddities_would_be_refused() {
        use crate::prompts::Duplicates;
        let odd: Vec<_> = CLASS_LISTS
            .iter()
            .filter(|list| {
                ClassList::new(list.name(), list.names().to_vec(), Duplicates::Refuse).is_err()
            })
            .map(ClassList::name)
            .collect();
        assert_eq!(odd, ["imagenet1k", "clevr_closest_object_distance"]);
    }

    #[test]
    fn names_are_found_by_other_spellings() {
        assert_eq!(templates(" ImageNet ").unwrap().name(), "imagenet1k");
        assert_eq!(class_names("ImageNet-1k").unwrap().len(), 1000);
        assert_eq!(class_names("CIFAR10-CLIPure").unwrap().names()[0], "plane");
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        let error = templates("imagnet1k").unwrap_err().to_string();
        assert!(error.contains("did you mean `imagenet1k`?"), "{error}");
        let error = class_names("zzzzzz").unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
        assert!(error.contains("caltech101"));
    }
}
