//! Ctrl-C and full disks: what is left behind, and how it goes on.

use crate::{Ran, clipguard, listing, program, text, tiny_architecture, tiny_model};
use std::{
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
