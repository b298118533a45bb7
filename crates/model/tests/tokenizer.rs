//! The tokenizer against the recorded output of the reference programs, and against texts
//! that no honest caption holds.
//!
//! Golden values come from the folder named by `CLIPGUARD_GOLDEN` if it is set, else from
//! `tests/golden` of the repository.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clipguard_model::tokenizer::{
    CONTEXT_LENGTH, Clean, END, START, Special, Tokenizer, TokenizerOptions, Truncation,
    VOCABULARY_SIZE,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    rows_77: Vec<Row>,
    strings: Vec<Case>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    row: Vec<u32>,
}

/// One text with the reference's result; ids are recorded up to 90.
#[derive(Deserialize)]
struct Case {
    text: String,
    cleaned: String,
    n: usize,
    ids: Vec<u32>,
    cleaned_without_mojibake_repair: Option<String>,
    ids_without_mojibake_repair: Option<Vec<u32>>,
    hf_ids: Option<Vec<u32>>,
}

fn golden() -> Golden {
    let folder = match std::env::var_os("CLIPGUARD_GOLDEN") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
    };
    let file = folder.join("clip/tokens.json");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
    serde_json::from_str(&text).unwrap()
}

fn tokenizer(clean: Clean, special: Special) -> Tokenizer {
    Tokenizer::with_options(TokenizerOptions { clean, special, ..Default::default() })
}

fn start_of(ids: &[u32]) -> &[u32] {
    &ids[..ids.len().min(90)]
}

#[test]
fn golden_strings_as_open_clip_reads_them() {
    let open_clip = tokenizer(Clean::Full, Special::OpenClip);
    let golden = golden();
    assert_eq!(golden.strings.len(), 189);
    let (mut bad, mut unrepaired) = (Vec::new(), 0);
    for case in &golden.strings {
        let cleaned = open_clip.clean(&case.text);
        let ids = open_clip.encode(&case.text);
        let exact = cleaned == case.cleaned && start_of(&ids) == case.ids && ids.len() == case.n;
        let without = Some(&cleaned) == case.cleaned_without_mojibake_repair.as_ref()
            && Some(start_of(&ids)) == case.ids_without_mojibake_repair.as_deref();
        unrepaired += usize::from(!exact && without);
        if !exact && !without {
            bad.push((&case.text, cleaned, ids));
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(unrepaired, 1, "of the eight garbled texts only `voil\u{c3} le` needs heuristics");
}

#[test]
fn golden_strings_cleaned_before() {
    let plain = tokenizer(Clean::None, Special::OpenClip);
    for case in &golden().strings {
        assert_eq!(start_of(&plain.encode(&case.cleaned)), case.ids, "{:?}", case.text);
    }
}

#[test]
fn golden_strings_as_hugging_face_reads_them() {
    let hugging_face = tokenizer(Clean::HuggingFace, Special::OpenAi);
    let mut different = 0;
    for case in &golden().strings {
        let want = case.hf_ids.as_ref().unwrap_or(&case.ids);
        different += usize::from(case.hf_ids.is_some());
        assert_eq!(start_of(&hugging_face.encode(&case.text)), want, "{:?}", case.text);
    }
    assert_eq!(different, 64);
}

#[test]
fn golden_rows() {
    let golden = golden();
    assert_eq!(golden.rows_77.len(), 5);
    for case in &golden.rows_77 {
        assert_eq!(Tokenizer::clip().row(&case.text, CONTEXT_LENGTH), case.row, "{}", case.text);
    }
}

#[test]
fn special_strings_are_text_unless_asked_for() {
    let text = "a<END_OF_TEXT>b <|StartOfText|> c";
    let ids = Tokenizer::clip().encode(text);
    assert!(ids.iter().all(|&id| id < START), "{ids:?}");
    let decoded = Tokenizer::clip().decode(&ids);
    assert_eq!(decoded.replace(' ', ""), "a<end_of_text>b<|startoftext|>c");

    let count = |special, clean| {
        tokenizer(clean, special).encode(text).iter().filter(|&&id| id >= START).count()
    };
    assert_eq!(count(Special::OpenClip, Clean::Full), 1);
    assert_eq!(count(Special::OpenAi, Clean::Full), 1);
    assert_eq!(count(Special::OpenAi, Clean::HuggingFace), 0, "exact case only");
    assert_eq!(
        tokenizer(Clean::Full, Special::OpenAi).encode("<|startoftext|> a <|endoftext|>"),
        [START, 320, END]
    );
}

#[test]
fn special_strings_are_reported() {
    let clip = Tokenizer::clip();
    for text in ["x<end_of_text>", "<|STARTOFTEXT|>", "&lt;end_of_text&gt;", "\u{ff1c}|endoftext|>"]
    {
        assert!(clip.contains_special(text), "{text}");
    }
    for text in ["", "<end of text>", "endoftext", "a < b > c"] {
        assert!(!clip.contains_special(text), "{text}");
    }
}

#[test]
fn a_cut_row_keeps_its_end_unless_asked_otherwise() {
    let text = "word ".repeat(100);
    for context in 0..80 {
        let row = Tokenizer::clip().row(&text, context);
        assert_eq!(row.len(), context);
        assert!(row.last().is_none_or(|&last| last == END));
    }
    let options = TokenizerOptions { truncation: Truncation::DropEnd, ..Default::default() };
    let row = Tokenizer::with_options(options).row(&text, 77);
    assert_eq!(row.len(), 77);
    assert!(!row.contains(&END));
    let fits = Tokenizer::with_options(options).row("a cat", 77);
    assert_eq!(fits, Tokenizer::clip().row("a cat", 77));
}

#[test]
fn decoding_a_row_gives_the_words() {
    let clip = Tokenizer::clip();
    assert_eq!(clip.decode(&clip.row("A Photo of a CAT!!", 77)), "a photo of a cat !!");
    assert_eq!(clip.decode(&[]), "");
    assert_eq!(clip.decode(&[u32::MAX, VOCABULARY_SIZE as u32, 320]), "\u{fffd}\u{fffd}a");
    // Half a character.
    assert_eq!(clip.decode(&clip.encode("\u{301}")[..1]), "\u{fffd}");
}

/// Texts of letters, marks, controls, entities and special strings in no sensible order.
fn wild_text(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    };
    let parts = [
        "a",
        "The ",
        " ",
        "\n",
        "<",
        "&amp;",
        "&#",
        "&#x41;",
        "&notit",
        ";",
        "'S",
        "'ll",
        "1",
        "\u{b2}",
        "<end_of_text>",
        "<|endoftext|>",
        "\u{1b}[0m",
        "\u{1b}[",
        "\r\n",
        "\u{85}",
        "\0",
        "\u{feff}",
        "\u{c3}\u{a9}",
        "\u{e2}\u{20ac}\u{153}",
        "\u{e9}",
        "e\u{301}",
        "\u{fb03}",
        "\u{ff21}",
        "\u{ff76}\u{ff9e}",
        "\u{130}",
        "\u{3a3}",
        "\u{345}",
        "\u{1f468}\u{200d}\u{1f4bb}",
        "\u{10ffff}",
        "\u{e01ef}",
        "\u{17f}",
    ];
    let mut text = String::new();
    for _ in 0..draw() % 40 {
        match draw() % 4 {
            0 => text.extend(char::from_u32((draw() % 0x11_0000) as u32)),
            1 => text.extend(char::from_u32((draw() % 0x300) as u32)),
            _ => text.push_str(parts[(draw() % parts.len() as u64) as usize]),
        }
    }
    text
}

#[test]
fn wild_texts_keep_the_promises() {
    for seed in 0..20_000 {
        let text = wild_text(seed);
        for clean in [Clean::Full, Clean::HuggingFace, Clean::None] {
            let tokenizer = tokenizer(clean, Special::PlainText);
            let ids = tokenizer.encode(&text);
            assert!(ids.iter().all(|&id| id < START), "{text:?}");
            let squeezed = |text: &str| -> String {
                text.chars().filter(|c| !c.is_whitespace() && *c != '\u{345}').collect()
            };
            let decoded = tokenizer.decode(&ids);
            assert_eq!(squeezed(&decoded), squeezed(&tokenizer.clean(&text)), "{text:?}");
        }
        for special in [Special::PlainText, Special::OpenClip, Special::OpenAi] {
            for clean in [Clean::Full, Clean::HuggingFace] {
                let row = tokenizer(clean, special).row(&text, 77);
                assert_eq!((row.len(), row[0]), (77, START));
                assert!(row.contains(&END));
                assert!(row.iter().all(|&id| (id as usize) < VOCABULARY_SIZE));
            }
        }
    }
}

#[test]
fn hostile_lengths_take_moderate_time() {
    let clip = Tokenizer::clip();
    let megabyte = 1 << 20;
    for unit in [
        "a",
        "ab",
        "thequickbrown",
        "!",
        "7",
        "\u{4f60}",
        "\u{301}",
        "a\u{301}",
        "\0",
        "&",
        "&#",
        "&a",
        "&amp;",
        "&amp;amp;amp",
        "\r",
        "\u{1b}[",
        "\u{c3}",
        "\u{c3}\u{a9}",
        "<end_of_text>",
        "'s",
        " ",
        "x ",
    ] {
        let text = unit.repeat(megabyte / unit.len());
        let begin = Instant::now();
        assert_eq!(clip.row(&text, 77).len(), 77);
        let took = begin.elapsed();
        println!("{unit:?} {took:?}");
        // A wide margin for busy machines; alone it is a fraction of a second.
        assert!(took < Duration::from_secs(10), "{unit:?} took {took:?}");
    }
}
