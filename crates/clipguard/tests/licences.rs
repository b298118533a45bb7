//! Every dependency has a licence that `deny.toml` allows, and comes from the registry; every
//! licence text that goes with a shipped file is there and named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn toml(name: &str) -> toml::Table {
    fs::read_to_string(root().join(name)).unwrap().parse().unwrap()
}

fn strings(value: &toml::Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// A truth value and the tokens behind it.
type Part<'a> = (bool, &'a [&'a str]);

/// Whether an SPDX expression is satisfied by the allowed licences. `/` is the old way to write
/// `OR`; `AND` binds closer.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (value, rest) = either(&tokens, allowed)?;
    if rest.is_empty() { Ok(value) } else { Err(format!("`{expression}`: {rest:?} is left")) }
}

fn either<'a>(tokens: &'a [&'a str], allowed: &BTreeSet<String>) -> Result<Part<'a>, String> {
    let (mut value, mut rest) = both(tokens, allowed)?;
    while let ["OR", tail @ ..] = rest {
        let (other, tail) = both(tail, allowed)?;
        (value, rest) = (value || other, tail);
    }
    Ok((value, rest))
}

fn both<'a>(tokens: &'a [&'a str], allowed: &BTreeSet<String>) -> Result<Part<'a>, String> {
    let (mut value, mut rest) = one(tokens, allowed)?;
    while let ["AND", tail @ ..] = rest {
        let (other, tail) = one(tail, allowed)?;
        (value, rest) = (value && other, tail);
    }
    Ok((value, rest))
}

fn one<'a>(tokens: &'a [&'a str], allowed: &BTreeSet<String>) -> Result<Part<'a>, String> {
    match tokens {
        ["(", tail @ ..] => match either(tail, allowed)? {
            (value, [")", tail @ ..]) => Ok((value, tail)),
            _ => Err("a bracket is not closed".to_owned()),
        },
        [name, "WITH", exception, tail @ ..] => {
            Ok((allowed.contains(&format!("{name} WITH {exception}")), tail))
        }
        [name, tail @ ..] if !["OR", "AND", "WITH", ")"].contains(name) => {
            Ok((allowed.contains(*name), tail))
        }
        _ => Err(format!("no licence at {tokens:?}")),
    }
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Zlib".to_owned()]);
    for (expression, want) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT OR GPL-3.0 AND GPL-2.0", true),
        ("(MIT OR GPL-3.0) AND GPL-2.0", false),
        ("(MIT OR GPL-3.0) AND Zlib", true),
        ("MIT WITH Some-exception", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), Ok(want), "{expression}");
    }
    for expression in ["", "MIT OR", "(MIT", "MIT Zlib"] {
        assert!(satisfied(expression, &allowed).is_err(), "{expression}");
    }
}

/// Package and licence of everything that is linked, built with or tested with on this platform.
fn dependencies() -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--offline", "-e", "normal,build,dev"])
        .args(["--prefix", "none", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let split = |line: &str| {
        // Packages shown before carry a star.
        let line = line.trim_end_matches(" (*)");
        let (package, licence) = line.split_once('|').unwrap();
        (package.to_owned(), licence.to_owned())
    };
    text.lines().filter(|line| !line.is_empty()).map(split).collect()
}

#[test]
fn every_dependency_is_covered_by_the_policy() {
    let policy = toml("deny.toml");
    let allowed = strings(&policy["licenses"]["allow"]);
    let exceptions = policy["licenses"]["exceptions"].as_array().unwrap();
    let banned = policy["bans"]["deny"].as_array().unwrap();
    let banned: BTreeSet<&str> = banned.iter().filter_map(|b| b["crate"].as_str()).collect();
    let dependencies = dependencies();
    assert!(dependencies.len() > 100, "{} dependencies", dependencies.len());
    let mut refused = Vec::new();
    for (package, licence) in &dependencies {
        let name = package.split(' ').next().unwrap();
        let own = exceptions.iter().filter(|e| e["crate"].as_str() == Some(name));
        let own = own.flat_map(|e| strings(&e["allow"]));
        match satisfied(licence, &own.chain(allowed.clone()).collect()) {
            Ok(true) if banned.contains(name) => refused.push(format!("{package} is banned")),
            Ok(true) => {}
            Ok(false) => refused.push(format!("{package}: `{licence}` is not allowed")),
            Err(reason) => refused.push(format!("{package}: {reason}")),
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let lock = toml("Cargo.lock");
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        match package.get("source").and_then(|source| source.as_str()) {
            None => assert!(name.starts_with("clipguard"), "{name} has no source"),
            Some(source) => {
                assert!(source.starts_with("registry+https://github.com/rust-lang/"), "{name}");
                assert!(package.get("checksum").is_some(), "{name} has no checksum");
            }
        }
    }
}

#[test]
fn licence_texts_exist_and_are_named() {
    let page = fs::read_to_string(root().join("THIRD_PARTY.md")).unwrap();
    let is_text = |path: &str| {
        path.starts_with("assets/LICENSES/") || path.starts_with("assets/text/LICENSE")
    };
    let named: BTreeSet<&str> = page.split('`').filter(|part| is_text(part)).collect();
    for path in &named {
        assert!(root().join(path).is_file(), "{path} is named and missing");
    }
    for folder in ["assets/LICENSES", "assets/text"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{folder}/{name}");
            let known = !is_text(&path) || named.contains(path.as_str());
            assert!(known, "{path} is not named in THIRD_PARTY.md");
        }
    }
    for text in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(root().join(text).is_file(), "{text} is missing");
    }
}
