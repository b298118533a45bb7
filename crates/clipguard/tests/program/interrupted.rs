//! Ctrl-C and full disks: what is left behind, and how it goes on.

use crate::{Ran, clipguard, listing, program, text, tiny_architecture, tiny_model};
use clipguard_data::Stream;
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Ctrl-C.
fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// Waits until `ready` holds or the program has ended.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_architecture(folder.path());
    let recipe = folder.path().join("recipe.toml");
    let text_of = format!(
        "model = {:?}\ndata = \"scenes:200:side=32\"\nsteps = 300\nbatch = 8\nwarmup = 5\n\
         save_every = 10\nlog_every = 1\n",
        text(&model)
    );
    std::fs::write(&recipe, text_of).unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    clipguard(&["train", text(&recipe), "--out", text(&whole)]).ended(0, &[]);
    let mut child = program(&["train", text(&recipe), "--out", text(&cut)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(&mut child, || cut.join("trainer.safetensors").exists());
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.ended(130, &["clipguard train --resume"]);
    assert!(!cut.join("checkpoint").exists());
    clipguard(&["train", "--resume", text(&cut)]).ended(0, &[]);
    for name in [
        "metrics.jsonl",
        "trainer.safetensors",
        "checkpoint/open_clip_model.safetensors",
        "checkpoint/open_clip_config.json",
    ] {
        let read = |run: &Path| std::fs::read(run.join(name)).unwrap();
        assert!(read(&whole) == read(&cut), "{name} differs");
    }
}

#[test]
fn an_interrupted_embed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/o.safetensors");
    let mut child = program(&[
        "embed",
        "--model",
        tiny_model(),
        "--images",
        "scenes:10000000:side=32",
        "--out",
        text(&out),
    ])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    wait_until(&mut child, || out.parent().unwrap().exists());
    std::thread::sleep(Duration::from_millis(200));
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.ended(130, &["nothing was written"]);
    assert!(listing(out.parent().unwrap()).is_empty());
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in listing(folder) {
        let path = folder.join(&name);
        match path.is_dir() {
            true => {
                let inside = contents(&path).into_iter();
                found.extend(inside.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
            }
            false => drop(found.insert(name, std::fs::read(&path).unwrap())),
        }
    }
    found
}

/// Bytes of all files in a folder, which may not be there yet.
fn weight(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

#[test]
fn an_evaluation_killed_at_ten_moments_ends_in_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let text_of = format!(
        "models = [{:?}]\nsamples = 48\nbatch = 4\ntemplates = \"simple\"\n\
         data = [\"scenes:200:part=instyle,side=32\"]\n\
         attacks = [\"pgd:eps=2/255,steps=8,early-exit=false\", \"square:eps=2/255,queries=20\"]\n\
         [[defence]]\nname = \"none\"\n[[defence]]\nname = \"cos\"\npurify = [\"clipure-cos\"]\n",
        tiny_model()
    );
    std::fs::write(&plan, text_of).unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    clipguard(&["evaluate", text(&plan), "--out", text(&whole)]).ended(0, &[]);
    let total = weight(&whole.join("units"));
    let mut stream = Stream::counted(0, "moments", 0);
    let mut hit = 0;
    for moment in 0..10 {
        // Moments of the work and not of the clock, which other programs slow down.
        let until = (total as f64 * (moment as f64 + f64::from(stream.uniform())) / 10.5) as u64;
        let mut child = program(&["evaluate", text(&plan), "--out", text(&cut)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(&mut child, || weight(&cut.join("units")) >= until);
        hit += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(hit >= 5, "only {hit} of ten kills met a running program");
    clipguard(&["evaluate", text(&plan), "--out", text(&cut)]).ended(0, &[]);
    let (whole, cut) = (contents(&whole), contents(&cut));
    let names = |of: &BTreeMap<String, Vec<u8>>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&whole), names(&cut));
    // The report and the summary name the folder they are in.
    let same = |name: &str| name.ends_with(".html") || name == "summary.json";
    for (name, bytes) in whole.iter().filter(|(name, _)| !same(name)) {
        assert!(*bytes == cut[name], "{name} differs");
    }
}

/// A file system of a few pages that is taken away in the end.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs", text(folder.path())])
            .output();
        mount.is_ok_and(|ran| ran.status.success()).then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_no_partial_file() {
    let Some(disk) = Small::mount("64k") else {
        return println!("skipped: no small file system can be mounted here");
    };
    let root = disk.0.path();
    let out = root.join("o.safetensors");
    clipguard(&[
        "embed",
        "--model",
        tiny_model(),
        "--images",
        "scenes:2000:side=32",
        "--out",
        text(&out),
    ])
    .ended(1, &["o.safetensors", "No space left"]);
    assert!(listing(root).is_empty(), "{:?}", listing(root));
    let model = tempfile::tempdir().unwrap();
    let model = tiny_architecture(model.path());
    let run = root.join("run");
    clipguard(&[
        "train",
        "--model",
        text(&model),
        "--data",
        "scenes:64:side=32",
        "--steps",
        "2",
        "--batch",
        "8",
        "--out",
        text(&run),
    ])
    .ended(1, &["No space left"]);
    assert!(!run.join("trainer.safetensors").exists() && !run.join("checkpoint").exists());
    assert!(listing(&run).iter().all(|name| !name.starts_with(".part-")));
}
