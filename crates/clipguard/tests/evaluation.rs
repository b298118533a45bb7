//! The main job, end to end, through the program.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn clipguard(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clipguard")).args(args).output().unwrap()
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = clipguard(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The records of a run without what may differ between runs.
fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("records.jsonl")).unwrap();
    let mut records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &mut records {
        record.as_object_mut().unwrap().remove("seconds");
        record["digests"].as_object_mut().unwrap().remove("plan");
    }
    records
}

const PLAN: &str = r#"
samples = 12
batch = BATCH
data = ["scenes:40:part=instyle"]
templates = "scenes"
attacks = ["pgd:eps=1/255,steps=3"]
[[defence]]
name = "none"
[[defence]]
name = "clipure-cos"
purify = ["clipure-cos"]
gradients = ["exact", "straight-through"]
published = { purify = ["clipure-cos:mode=released"], gradient = "detached", batch = 2 }
"#;

fn plan(folder: &Path, name: &str, batch: usize) -> String {
    let path = folder.join(name);
    fs::write(&path, PLAN.replace("BATCH", &batch.to_string())).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_demo_tells_both_protocols_and_leaves_a_self_contained_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let text = succeeds(&["-q", "demo", "--samples", "8", "--out", out.to_str().unwrap()]);
    for said in ["published protocol", "honest protocol", "report.html", "worst-case"] {
        assert!(text.contains(said), "{said} in {text}");
    }
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(!report.contains("http://") && !report.contains("https://"), "loads nothing");
    assert!(report.contains("gradient") && report.contains("clipguard demo"));
    for record in records(&out) {
        assert!(record["interval"]["low"].as_f64() <= record["interval"]["high"].as_f64());
        assert_eq!(record["task"], "zeroshot_classification");
        assert!(record["metrics"]["acc1"].is_number() && record["model"] == "embedded");
    }
    // CLIPure-Cos per sample is the identity: the honest worst case is that of no defence.
    let worst: Vec<Value> = records(&out)
        .into_iter()
        .filter(|r| r["attack"] == "worst-case")
        .map(|r| r["correct"].clone())
        .collect();
    assert_eq!(worst[0], worst[1]);
}

#[test]
fn records_do_not_depend_on_batches_threads_or_interruptions() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (five, twelve) = (plan(folder.path(), "5.toml", 5), plan(folder.path(), "12.toml", 12));
    succeeds(&["-q", "evaluate", &five, "--out", &path("five")]);
    succeeds(&["-q", "--threads", "1", "evaluate", &twelve, "--out", &path("twelve")]);
    let want = records(&folder.path().join("five"));
    assert_eq!(want, records(&folder.path().join("twelve")));
    // Units that are missing, as after an interruption, are computed again; the others are kept.
    let units = folder.path().join("five/units");
    let some = fs::read_dir(&units).unwrap().flatten().map(|entry| entry.path());
    let json: Vec<_> = some.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    fs::remove_file(&json[0]).unwrap();
    fs::remove_file(folder.path().join("five/records.jsonl")).unwrap();
    succeeds(&["-q", "evaluate", &five, "--out", &path("five")]);
    assert_eq!(want, records(&folder.path().join("five")));
    // A folder belongs to one plan.
    let output = clipguard(&["-q", "evaluate", &twelve, "--out", &path("five")]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn plans_with_mistakes_are_refused_with_the_place_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    let out = folder.path().join("out");
    for (text, said) in [
        ("sampels = 3\ndata = [\"embedded\"]", "sampels"),
        ("data = [\"embedded\"]\nattacks = [\"pdg\"]", "did you mean `pgd`?"),
        ("data = [\"embedded\"]\ntemplates = \"scens\"", "scenes"),
        ("data = [\"no-such-folder\"]", "no-such-folder"),
        ("data = [\"embedded\"]\nmodels = [\"no-such-model\"]", "no-such-model"),
    ] {
        fs::write(&path, text).unwrap();
        let output =
            clipguard(&["-q", "evaluate", path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(2 | 3)), "{text}: {errors}");
        assert!(errors.contains(said), "{text}: {errors}");
        let _ = fs::remove_dir_all(&out);
    }
}

#[test]
fn attacks_save_pictures_that_stay_in_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adv");
    let text = succeeds(&[
        "-q",
        "--json",
        "attack",
        "--data",
        "scenes:20:part=instyle",
        "--samples",
        "6",
        "--attack",
        "pgd:eps=4/255,steps=3",
        "--out",
        out.to_str().unwrap(),
    ]);
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["n"], 6);
    assert!(summary["robust_correct"].as_u64() <= summary["clean_correct"].as_u64());
    assert_eq!(fs::read_dir(out.join("pictures")).unwrap().count(), 6);
}
