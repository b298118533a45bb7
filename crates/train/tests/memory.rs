//! The memory of a step in parts is that of a part. Alone in its process, so that the peak is its
//! own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use clipguard_data::Options;
use clipguard_train::{Outcome, Recipe, Run, Watch};
use std::{fs, path::Path, sync::atomic::AtomicBool};

const MODEL: &str = r#"{
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8
    },
    "text_cfg": {
        "context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1
    }
}"#;

struct Quiet;

impl Watch for Quiet {
    fn step(&mut self, _done: u64, _total: u64, _loss: f32) {}
    fn skipped(&mut self, _key: &str, _reason: &str) {}
}

/// A line of the process's status, in KiB.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// Peak of the resident memory during a step, in KiB.
fn peak(folder: &Path, micro_batch: usize) -> u64 {
    let model = folder.join("model.json");
    fs::write(&model, MODEL).unwrap();
    let recipe = Recipe {
        model: model.to_str().unwrap().to_owned(),
        data: "scenes:256:side=64".to_owned(),
        steps: 1,
        batch: 192,
        warmup: 0,
        micro_batch,
        ..Recipe::default()
    };
    let source = clipguard_data::open(&recipe.data, &Options::default()).unwrap();
    let mut run = Run::start(recipe, source, &folder.join(format!("run-{micro_batch}"))).unwrap();
    // Starts a new peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    assert_eq!(run.train(&mut Quiet, &AtomicBool::new(false)).unwrap(), Outcome::Finished);
    status("VmHWM:")
}

#[test]
fn the_peak_is_bounded_by_the_part() {
    let room = tempfile::tempdir().unwrap();
    // Everything that is loaded once is loaded.
    peak(room.path(), 1);
    let before = status("VmRSS:");
    let [small, larger, whole] = [4, 24, 0].map(|rows| peak(room.path(), rows) - before);
    println!("KiB beyond {before}: 4 pairs {small}, 24 pairs {larger}, all 192 {whole}");
    assert!(whole > 4 * larger, "24 pairs {larger} KiB, 192 pairs {whole} KiB");
    assert!(small <= larger, "4 pairs {small} KiB, 24 pairs {larger} KiB");
}
