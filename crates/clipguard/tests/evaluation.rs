//! The main job, end to end, through the program.
#![allow(clippy::unwrap_used, reason = "tests")]

use clipguard_data::Stream;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ffi::OsString,
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
    let json: Vec<_> = some.filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
    fs::remove_file(&json[0]).unwrap();
    fs::remove_file(folder.path().join("five/records.jsonl")).unwrap();
    succeeds(&["-q", "evaluate", &five, "--out", &path("five")]);
    assert_eq!(want, records(&folder.path().join("five")));
    // A folder belongs to one plan.
    let output = clipguard(&["-q", "evaluate", &twelve, "--out", &path("five")]);
    assert_eq!(output.status.code(), Some(3));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("`batch` is 12 here and 5 there"), "{errors}");
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
        ("data = [\"embedded\"]\n[[certify]]\ndefence = \"cos\"", "there are `none`"),
        ("data = [\"embedded\"]\n[[certify]]\nsigma = 0.0", "above 0"),
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
    // Read back exactly, nothing changes; as PNG a picture may leave the budget by rounding.
    assert_eq!(summary["robust_correct_reread"], summary["robust_correct"]);
    assert_eq!(summary["within_budget_reread"], 6);
    assert!(
        summary["within_budget_as_png"].is_u64() && out.join("adversarial.safetensors").exists()
    );
    assert!(summary["robust_correct"].as_u64() <= summary["clean_correct"].as_u64());
    assert_eq!(fs::read_dir(out.join("pictures")).unwrap().count(), 6);
}

/// A plan that can be shared out: nothing in it couples the pictures of a batch.
const SHARED: &str = r#"
samples = 12
batch = 3
data = ["scenes:40:part=instyle"]
templates = "scenes"
attacks = ["fgsm:eps=1/255", "pgd:eps=1/255,steps=3"]
[[defence]]
name = "none"
[[defence]]
name = "clipure-cos"
purify = ["clipure-cos"]
[[certify]]
sigma = 0.1
n0 = 5
n = 40
alpha = 0.05
radii = [0.0, 0.05]
"#;

/// What a run says, to the byte.
fn said(folder: &Path) -> Vec<Vec<u8>> {
    let files =
        ["records.jsonl", "samples.jsonl", "examples.json", "adversarial/0-none.safetensors"];
    files.map(|name| fs::read(folder.join(name)).unwrap()).to_vec()
}

struct Runs {
    folder: tempfile::TempDir,
    plan: String,
}

impl Runs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = folder.path().join("plan.toml");
        fs::write(&plan, SHARED).unwrap();
        Self { plan: plan.to_str().unwrap().to_owned(), folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs the plan into a folder with further arguments, and returns the exit code and stderr.
    fn run(&self, name: &str, more: &[&str]) -> (i32, String) {
        let out = self.path(name);
        let arguments = [&["-q", "evaluate", &self.plan, "--out", &out], more].concat();
        let output = clipguard(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), errors)
    }
}

#[test]
fn certificates_are_told_with_their_curve_and_go_on_where_they_stopped() {
    let runs = Runs::new();
    assert_eq!(runs.run("run", &[]).0, 0);
    let folder = runs.path("run");
    let all = records(Path::new(&folder));
    let proved: Vec<&Value> = all.iter().filter(|r| r["protocol"] == "certified").collect();
    assert_eq!(proved.len(), 2, "a record for each radius");
    assert_eq!(proved[1]["threat"]["norm"], "l2");
    assert_eq!(proved[0]["interval"]["method"], "clopper-pearson");
    assert!(proved[1]["correct"].as_u64() <= proved[0]["correct"].as_u64());
    let curve = proved[0]["certified"]["curve"].as_array().unwrap();
    assert_eq!(curve[0]["correct"], proved[0]["correct"]);
    assert_eq!(proved[0]["forwards"], 12 * 45);
    let page = fs::read_to_string(Path::new(&folder).join("report.html")).unwrap();
    assert!(page.contains("What is proved"));
    // Cut the votes off in the middle, as a crash would.
    let units = fs::read_dir(Path::new(&folder).join("units")).unwrap().flatten();
    let votes = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("\"row\":["));
    let unit = units.map(|entry| entry.path()).find(|path| votes(path)).unwrap();
    let whole = fs::read(&unit).unwrap();
    fs::write(&unit, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(runs.run("run", &[]).0, 0);
    assert_eq!(all, records(Path::new(&folder)));
    assert_eq!(whole, fs::read(&unit).unwrap());
}

#[test]
fn shards_merge_to_the_bytes_of_the_whole_run() {
    let runs = Runs::new();
    assert_eq!(runs.run("whole", &[]).0, 0);
    let whole = said(Path::new(&runs.path("whole")));
    for of in [1, 2, 5] {
        let parts: Vec<String> = (0..of).map(|i| runs.path(&format!("part{i}of{of}"))).collect();
        for i in 0..of {
            let (code, errors) =
                runs.run(&format!("part{i}of{of}"), &["--shard", &format!("{i}/{of}")]);
            assert_eq!(code, 0, "{errors}");
        }
        let out = runs.path(&format!("merged{of}"));
        // In any order.
        let mut arguments = vec!["-q", "merge", "--out", &out];
        arguments.extend(parts.iter().rev().map(String::as_str));
        succeeds(&arguments);
        assert!(whole == said(Path::new(&out)), "{of} shards");
        if of == 5 {
            let output = clipguard(&["-q", "merge", &parts[0], &parts[1], "--out", &out]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3));
            assert!(errors.contains("shard 2/5, shard 3/5, shard 4/5"), "{errors}");
            let twice = clipguard(&["-q", "merge", &parts[0], &parts[0], "--out", &out]);
            let errors = String::from_utf8_lossy(&twice.stderr);
            assert!(errors.contains("shard 0/5 a second time"), "{errors}");
        }
    }
    // Parts of different plans do not fit.
    let other = SHARED.replace("steps=3", "steps=4");
    fs::write(&runs.plan, other).unwrap();
    assert_eq!(runs.run("other", &["--shard", "1/2"]).0, 0);
    let (first, out) = (runs.path("part0of2"), runs.path("odd"));
    let output = clipguard(&["-q", "merge", &first, &runs.path("other"), "--out", &out]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3));
    assert!(errors.contains("`attacks` is"), "{errors}");
    // A published protocol couples the pictures of a batch.
    fs::write(&runs.plan, PLAN.replace("BATCH", "5")).unwrap();
    let (code, errors) = runs.run("coupled", &["--shard", "0/2"]);
    assert!(code == 3 && errors.contains("couples"), "{errors}");
}

/// Name and bytes of every file in a folder, which may not be there yet.
fn files(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name(), fs::read(entry.path()).ok()?))).collect()
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let runs = Runs::new();
    assert_eq!(runs.run("whole", &[]).0, 0);
    let units = |name: &str| Path::new(&runs.path(name)).join("units");
    let weight = |name: &str| files(&units(name)).values().map(Vec::len).sum::<usize>() as f32;
    let (total, out) = (weight("whole"), runs.path("killed"));
    let mut stream = Stream::counted(0, "moments", 0);
    let mut hit = 0;
    for moment in 0..10 {
        // Ten moments of the work and not of the clock, which other programs slow down.
        let until = total * (moment as f32 + stream.uniform()) / 10.5;
        let mut child = Command::new(env!("CARGO_BIN_EXE_clipguard"))
            .args(["-q", "evaluate", &runs.plan, "--out", &out])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() && weight("killed") < until {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        hit += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
    }
    assert!(hit >= 5, "only {hit} of ten kills met a running program");
    // A batch under way leaves a half line and pictures without lines.
    for unit in fs::read_dir(units("killed")).unwrap().flatten() {
        let path = unit.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let text = fs::read(&path).unwrap();
            fs::write(&path, &text[..text.len() - text.len() / 3]).unwrap();
        }
    }
    assert_eq!(runs.run("killed", &[]).0, 0);
    assert!(said(Path::new(&runs.path("whole"))) == said(Path::new(&out)));
    assert!(files(&units("whole")) == files(&units("killed")));
}

#[test]
fn systems_are_compared_and_a_smaller_radius_counts_for_a_larger_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("plan.toml"), folder.path().join("run"));
    let copy = folder.path().join("copy");
    succeeds(&["-q", "convert", "embedded", "--to", "open-clip", "--out", copy.to_str().unwrap()]);
    // The attack within the larger radius hardly moves.
    let plan = format!(
        r#"
samples = 12
models = ["embedded", {copy:?}]
data = ["scenes:40:part=instyle"]
templates = "scenes"
attacks = ["pgd:eps=8/255,steps=1,alpha=1e-6,start=none"]
[[baseline]]
[[defence]]
name = "none"
attacks = ["pgd:eps=2/255,steps=10"]
[[defence]]
name = "shifts"
models = ["embedded"]
purify = ["shifts"]
"#
    );
    fs::write(&path, plan).unwrap();
    let told = succeeds(&["evaluate", path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(told.contains("beside embedded without a defence"), "{told}");
    let records = records(&out);
    let worst = |model: &str, defence: &str, eps: f64| {
        let fits = |r: &&Value| {
            let at = r["threat"]["eps"].as_f64().is_some_and(|e| (e * 255.0 - eps).abs() < 1e-3);
            at && r["attack"] == "worst-case" && r["model"] == model && r["defence"] == defence
        };
        records.iter().find(fits)
    };
    let own = worst("embedded", "none", 2.0).unwrap();
    let larger = worst("embedded", "none", 8.0).unwrap();
    assert!(own["correct"].as_u64() >= larger["correct"].as_u64(), "{own} {larger}");
    assert!(larger["broken_by_smaller_radii_alone"].as_u64() > Some(0), "{larger}");
    // Attacks of one defence are not run on another, and defences of one model not on another.
    let copy = copy.to_str().unwrap();
    assert!(worst("embedded", "shifts", 2.0).is_none());
    assert!(worst("embedded", "shifts", 8.0).is_some() && worst(copy, "shifts", 8.0).is_none());
    let beside = &worst(copy, "none", 8.0).unwrap()["against"][0];
    assert_eq!((&beside["model"], &beside["only_here"]), (&"embedded".into(), &0.into()));
    assert!(larger.get("against").is_none(), "nobody stands beside himself");
}

#[test]
fn two_processes_do_not_share_a_run_folder() {
    let runs = Runs::new();
    assert_eq!(runs.run("busy", &["--max-minutes", "0"]).0, 130);
    let held = fs::File::open(Path::new(&runs.path("busy")).join("plan.toml")).unwrap();
    held.lock().unwrap();
    let (code, errors) = runs.run("busy", &[]);
    assert!(code == 3 && errors.contains("another process"), "{code}: {errors}");
    drop(held);
    assert_eq!(runs.run("busy", &[]).0, 0);
}

#[test]
fn a_run_out_of_time_stops_cleanly_and_goes_on() {
    let runs = Runs::new();
    assert_eq!(runs.run("whole", &[]).0, 0);
    let (code, errors) = runs.run("short", &["--max-minutes", "0"]);
    assert_eq!(code, 130, "{errors}");
    for word in ["upper bound", "go on with `clipguard evaluate", "missing"] {
        assert!(errors.contains(word), "{word} in {errors}");
    }
    assert_eq!(runs.run("short", &[]).0, 0);
    assert!(said(Path::new(&runs.path("whole"))) == said(Path::new(&runs.path("short"))));
}

#[test]
fn pictures_that_are_handed_in_can_only_lower_a_number() {
    let runs = Runs::new();
    let strong = runs.path("strong");
    let data = ["--data", "scenes:40:part=instyle", "--samples", "12", "--out", &strong];
    let attack = ["-q", "attack", "--attack", "pgd:eps=1/255,steps=20,loss=margin"];
    succeeds(&[&attack[..], &data].concat());
    let file = format!("{strong}/adversarial.safetensors");
    assert_eq!(runs.run("plain", &[]).0, 0);
    assert_eq!(runs.run("with", &["--adversarial", &file]).0, 0);
    let right = |name: &str| -> Vec<bool> {
        let text = fs::read_to_string(Path::new(&runs.path(name)).join("samples.jsonl")).unwrap();
        let robust = |line: &str| serde_json::from_str::<Value>(line).unwrap()["robust"].clone();
        text.lines().map(|line| robust(line).as_bool().unwrap()).collect()
    };
    let (plain, with) = (right("plain"), right("with"));
    assert!(plain.len() == with.len() && plain.iter().zip(&with).all(|(a, b)| a >= b));
    let records = records(Path::new(&runs.path("with")));
    let handed = records.iter().find(|r| r["attack"].as_str().unwrap().starts_with("handed in"));
    assert!(handed.unwrap()["correct"].as_u64().unwrap() <= 12);
    // Limits: a number that is too low, and a run that is no worse than itself.
    let (code, errors) = runs.run("plain", &["--min-robust", "1"]);
    assert!(code == 1 && errors.contains("below the limit of 100.0%"), "{errors}");
    assert_eq!(runs.run("plain", &["--baseline", &runs.path("plain"), "--min-robust", "0"]).0, 0);
    assert_eq!(runs.run("plain", &["--baseline", &runs.plan]).0, 3);
    // The forms of others.
    let (out, run) = (runs.path("export"), runs.path("plain"));
    succeeds(&["-q", "report", &run, "--export", &out]);
    assert_eq!(fs::read_dir(Path::new(&out).join("clip_benchmark")).unwrap().count(), 2);
    assert!(Path::new(&out).join("model_info").is_dir());
}

/// Detectors that an attack knows of, and what the purifiers do to embeddings.
const STUDIES: &str = r#"
samples = 16
batch = 5
data = ["scenes:60:part=instyle"]
templates = "scenes"
attacks = ["pgd:eps=2/255,steps=5"]
embeddings = true
[[defence]]
name = "none"
[[defence]]
name = "clipure-cos"
purify = ["clipure-cos:steps=9"]
[[detect]]
score = "blank-cosine"
weights = [0.0, 1000.0]
"#;

#[test]
fn detectors_and_embeddings_are_told_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, out) = (folder.path().join("plan.toml"), folder.path().join("out"));
    fs::write(&plan, STUDIES).unwrap();
    let (plan, out_text) = (plan.to_str().unwrap(), out.to_str().unwrap());
    let told = succeeds(&["-q", "evaluate", plan, "--out", out_text]);
    assert!(told.contains("AUROC") && told.contains("blank-cosine"), "{told}");
    let all = records(&out);
    let found: Vec<&Value> = all.iter().filter(|r| r["task"] == "adversarial_detection").collect();
    assert_eq!(found.len(), 2, "a record for each weight");
    let detection = |i: usize, key: &str| found[i]["detection"][key].clone();
    assert_eq!((detection(0, "weight"), detection(1, "weight")), (0.0.into(), 1000.0.into()));
    assert!(detection(0, "broken").as_u64() > Some(0), "the attack breaks something");
    let area = |i: usize| found[i]["metrics"]["auroc"].as_f64();
    // Whoever raises nothing but the likelihood looks likelier than whoever does not know of it.
    assert!(area(1).is_none_or(|known| known < area(0).unwrap()), "{found:?}");
    let shift = all.iter().find(|r| r["task"] == "embedding_shift").unwrap();
    assert_eq!(shift["defence"], "clipure-cos");
    let attacks = shift["embeddings"]["attacks"].as_array().unwrap();
    assert_eq!(attacks.len(), 3);
    let lead = |which: &str| {
        let quantiles = attacks[0]["lead"][which].as_array().unwrap();
        quantiles[quantiles.len() / 2].as_f64().unwrap()
    };
    assert!(lead("attacked_before") < lead("clean_before"), "an attack takes the lead");
    assert!(lead("clean_after") < lead("clean_before"), "nine steps reverse it");
    assert_eq!(attacks[0]["spaces"].as_array().unwrap().len(), 3);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for said in ["Likelihood as a detector", "What clipure-cos did to the embeddings"] {
        assert!(page.contains(said), "{said}");
    }
    // The same again, from the units and in shards.
    succeeds(&["-q", "evaluate", plan, "--out", out_text]);
    assert_eq!(all, records(&out));
    let parts = ["a", "b"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    for (i, part) in parts.iter().enumerate() {
        succeeds(&["-q", "evaluate", plan, "--out", part, "--shard", &format!("{i}/2")]);
    }
    let merged = folder.path().join("merged");
    succeeds(&["-q", "merge", &parts[0], &parts[1], "--out", merged.to_str().unwrap()]);
    assert_eq!(all, records(&merged));
}
