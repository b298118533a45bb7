//! Built-in prompts against the recorded ones, and prompt files as users write them.
//!
//! Golden values come from the folder named by `CLIPGUARD_GOLDEN` if it is set, else from
//! `tests/golden` of the repository.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use clipguard_model::prompts::{self, ClassList, Duplicates, PromptError, Template, TemplateSet};
use clipguard_model::tokenizer::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    openai_80: Vec<String>,
    simple_7: Vec<String>,
    imagenet_1000_class_names: Vec<String>,
}

fn golden() -> Golden {
    let folder = match std::env::var_os("CLIPGUARD_GOLDEN") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
    };
    let file = folder.join("clip/imagenet_templates.json");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
    serde_json::from_str(&text).unwrap()
}

fn texts(set: &TemplateSet) -> Vec<&str> {
    set.templates().iter().map(Template::as_str).collect()
}

#[test]
fn imagenet_is_worded_as_published() {
    let golden = golden();
    assert_eq!(texts(prompts::templates("imagenet1k").unwrap()), golden.openai_80);
    assert_eq!(texts(prompts::templates("imagenet7").unwrap()), golden.simple_7);
    let names = prompts::class_names("imagenet1k").unwrap().names();
    assert_eq!(names, golden.imagenet_1000_class_names);
}

#[test]
fn every_built_in_prompt_fits_the_context() {
    let clip = Tokenizer::clip();
    for name in prompts::class_list_names() {
        let set = prompts::templates(name).or_else(|_| prompts::templates("simple")).unwrap();
        for class in prompts::class_names(name).unwrap().names() {
            for prompt in set.prompts(class) {
                assert!(clip.encode(&prompt).len() + 2 <= 77, "{prompt}");
            }
        }
    }
}

#[test]
fn blank_prompts_are_the_templates_about_nothing() {
    let blanks: Vec<String> = prompts::templates("imagenet1k").unwrap().blanks().collect();
    assert_eq!(blanks.len(), 80);
    assert!(blanks.contains(&"a photo of a .".to_owned()));
    assert_eq!(
        Tokenizer::clip().encode("a photo of a ."),
        Tokenizer::clip().encode("a photo of a."),
        "the splitter drops the space"
    );
}

#[test]
fn digests_tell_sets_apart() {
    let mut digests: Vec<_> =
        prompts::class_list_names().map(|n| prompts::class_names(n).unwrap().digest()).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), prompts::class_list_names().count());
    let [ten, hundred] = ["cifar10", "cifar100"].map(|n| prompts::templates(n).unwrap());
    assert_eq!(ten.digest(), hundred.digest(), "the same templates under two names");
    assert_ne!(ten.digest(), prompts::templates("imagenet1k").unwrap().digest());
}

#[test]
fn files_are_read_and_errors_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let set = TemplateSet::read(file("mine.txt", b"# mine\na {}\n")).unwrap();
    assert_eq!((set.name(), set.len()), ("mine", 1));
    let list = ClassList::read(file("classes.json", b"[\"{c}\", \"b\"]")).unwrap();
    assert_eq!(set.prompts(&list.names()[0]).next().as_deref(), Some("a {c}"));

    let message = |result: Result<ClassList, PromptError>| result.unwrap_err().to_string();
    let twice = file("twice.txt", b"a\nb\na\n");
    let error = message(ClassList::read(&twice));
    assert!(error.ends_with("twice.txt: class `a` occurs twice: lines 1 and 3"), "{error}");
    assert_eq!(ClassList::read_with(&twice, Duplicates::Keep).unwrap().len(), 3);
    let error = message(ClassList::read(file("latin1.txt", b"ok\ncaf\xe9\n")));
    assert!(error.ends_with("latin1.txt: line 2 is not UTF-8"), "{error}");
    let error = message(ClassList::read(file("empty.txt", b"\n")));
    assert!(error.ends_with("empty.txt: there is no class name in it"), "{error}");
    let error = message(ClassList::read(file("large.txt", &vec![b'a'; (16 << 20) + 1])));
    assert!(error.ends_with("large.txt has more than 16777216 bytes"), "{error}");
    let error = message(ClassList::read(folder.path().join("missing.txt")));
    assert!(error.contains("missing.txt: "), "{error}");
    assert!(ClassList::read(folder.path()).is_err());
    let error = TemplateSet::read(file("bad.txt", b"a {}\na photo\n")).unwrap_err().to_string();
    assert!(error.contains("bad.txt: line 2: template `a photo` has no place"), "{error}");
}
