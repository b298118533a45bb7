//! Attacks of every kind of budget and transfer between models, through the program.
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

/// What it said on stdout and stderr.
#[track_caller]
fn succeeds(args: &[&str]) -> (String, String) {
    let output = clipguard(args);
    let [out, errors] = [output.stdout, output.stderr].map(|t| String::from_utf8(t).unwrap());
    assert!(output.status.success(), "{args:?}: {errors}");
    (out, errors)
}

fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("records.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The embedded model with weights that are a little off.
fn other_model(folder: &Path) -> String {
    let path = folder.join("other");
    succeeds(&["-q", "convert", "embedded", "--out", path.to_str().unwrap()]);
    let file = path.join("open_clip_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for (i, number) in bytes[8 + header..].chunks_exact_mut(4).enumerate() {
        let value = f32::from_le_bytes((*number).try_into().unwrap());
        let off = value * (1.0 + 0.1 * (i as f32 * 0.7).sin());
        number.copy_from_slice(&off.to_le_bytes());
    }
    fs::write(&file, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn pictures_from_named_models_count_and_can_only_lower_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let other = other_model(folder.path());
    let plan = |models: &[&str]| {
        let file = path(&format!("{}.toml", models.len()));
        let text = format!(
            "samples = 12\nbatch = 5\ndata = [\"scenes:40:part=instyle\"]\ntemplates = \"scenes\"\n\
             attacks = [\"fgsm:eps=1/255\", \"pgd:eps=1/255,steps=3\"]\ntransfer-from = {models:?}\n\
             [[defence]]\nname = \"none\"\n\
             [[defence]]\nname = \"clipure-cos\"\npurify = [\"clipure-cos\"]\n"
        );
        fs::write(&file, text).unwrap();
        file
    };
    succeeds(&["-q", "evaluate", &plan(&[]), "--out", &path("alone")]);
    succeeds(&["-q", "evaluate", &plan(&[&other, "embedded"]), "--out", &path("both")]);
    let robust = |name: &str| -> Vec<bool> {
        let text = fs::read_to_string(folder.path().join(name).join("samples.jsonl")).unwrap();
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["robust"].clone();
        text.lines().map(|text| line(text).as_bool().unwrap()).collect()
    };
    let (alone, both) = (robust("alone"), robust("both"));
    assert!(alone.len() == 24 && alone.iter().zip(&both).all(|(a, b)| a >= b));
    let found = records(&folder.path().join("both"));
    let correct = |attack: &str, defence: &str| {
        let is_it = |r: &&Value| r["attack"] == attack && r["defence"] == defence;
        found.iter().find(is_it).unwrap_or_else(|| panic!("{attack}"))["correct"].as_u64().unwrap()
    };
    // Pictures of the model itself are those of the direct attack.
    for attack in ["fgsm:eps=1/255", "pgd:eps=1/255,steps=3"] {
        let own = correct(&format!("transfer of {attack} from embedded"), "none");
        assert_eq!(own, correct(attack, "none"), "{attack}");
        let theirs = correct(&format!("transfer of {attack} from {other}"), "none");
        assert!(theirs >= own, "another model's pictures are weaker: {theirs} {own}");
        correct(&format!("transfer of {attack} from {other}"), "clipure-cos");
    }
    // Other weights under the same name are another run.
    let weights = Path::new(&other).join("open_clip_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let again =
        clipguard(&["-q", "evaluate", &plan(&[&other, "embedded"]), "--out", &path("both")]);
    let errors = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && errors.contains("transfer from"), "{errors}");
    // Parts of it are the whole, to the byte.
    let shards: Vec<String> = (0..2).map(|i| path(&format!("part{i}"))).collect();
    for (i, shard) in shards.iter().enumerate() {
        let part = format!("{i}/2");
        let from = ["--transfer-from", &other];
        let run = ["-q", "evaluate", &plan(&[]), "--out", shard, "--shard", &part];
        succeeds(&[&run[..], &from].concat());
    }
    succeeds(&["-q", "merge", &shards[0], &shards[1], "--out", &path("merged")]);
    let from = ["--transfer-from", &other];
    succeeds(&[&["-q", "evaluate", &plan(&[]), "--out", &path("one")][..], &from].concat());
    let said = |name: &str| fs::read(folder.path().join(name).join("records.jsonl")).unwrap();
    assert!(said("merged") == said("one"));
}

#[test]
fn a_patch_keeps_its_share_and_says_that_the_checks_are_not_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("patch");
    let base = ["-q", "--json", "attack", "--data", "scenes:20:part=instyle", "--samples", "5"];
    let attack = ["--attack", "patch:share=0.06,steps=8,grid=2", "--out", out.to_str().unwrap()];
    let (text, _) = succeeds(&[&base[..], &attack].concat());
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (summary["within_budget_reread"].clone(), summary["n"].clone()),
        (5.into(), 5.into())
    );
    assert!(summary["robust_correct"].as_u64() <= summary["clean_correct"].as_u64());
    let refused = clipguard(&[&base[..], &attack, &["--check"]].concat());
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && errors.contains("not for a patch"), "{errors}");
}

#[test]
fn small_errors_queries_and_patches_are_in_one_report() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, out) = (folder.path().join("plan.toml"), folder.path().join("out"));
    fs::write(
        &plan,
        "samples = 8\nbatch = 8\ndata = [\"scenes:40:part=instyle\"]\ntemplates = \"scenes\"\n\
         attacks = [\"deepfool:eps=1.5,steps=8,candidates=3\", \
         \"cw:eps=1.5,searches=2,steps=10,lr=0.05,c=1\", \
         \"hopskipjump:eps=1.5,queries=250,probes=20\", \"square:norm=l2,eps=1.5,queries=60\", \
         \"patch:share=0.06,steps=5,grid=2\"]\n",
    )
    .unwrap();
    let (plan, out) = (plan.to_str().unwrap(), out.to_str().unwrap());
    let (_, errors) = succeeds(&["evaluate", plan, "--out", out]);
    assert!(errors.contains("5 attacks on 8 pictures, at most"), "{errors}");
    let report = fs::read_to_string(Path::new(out).join("report.html")).unwrap();
    for said in ["median smallest error", "queries of a picture", "patch:share=0.06"] {
        assert!(report.contains(said), "{said}");
    }
    let worst: Vec<Value> = records(Path::new(out))
        .into_iter()
        .filter(|r| r["attack"] == "worst-case")
        .map(|r| serde_json::json!([r["threat"]["norm"], r["threat"]["eps"]]))
        .collect();
    assert_eq!(worst, [serde_json::json!(["l2", 1.5]), serde_json::json!(["patch", 0.06])]);
}

#[test]
fn a_check_says_first_how_long_it_takes_and_then_how_sure_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let attack = ["attack", "--attack", "pgd:eps=1/255,steps=5", "--check", "--out", out];
    let data = ["--json", "--data", "scenes:20:part=instyle", "--samples", "8"];
    let (text, errors) = succeeds(&[&attack[..], &data].concat());
    assert!(errors.contains("18 checks on 8 pictures: about"), "{errors}");
    let summary: Value = serde_json::from_str(&text).unwrap();
    let check = |id: &str| {
        let all = summary["checks"].as_array().unwrap();
        all.iter().find(|check| check["id"] == id).unwrap()["explanation"].to_string()
    };
    for id in ["O2", "O14"] {
        assert!(check(id).contains("95 percent interval"), "{id}: {}", check(id));
    }
}
