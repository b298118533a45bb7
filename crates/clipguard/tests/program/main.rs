//! The program from outside: arguments in, exit code, stdout, stderr and files out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod commands;
mod device;
mod files;
mod hostile;
mod interrupted;
mod refused;
mod training;

use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// What a run of the program left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless the program ended with `code` and stderr holds every one of `words`.
    #[track_caller]
    fn ended(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in stderr: {}", self.stderr);
        }
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect(&self.stdout)
    }
}

/// The program, ready to be started.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clipguard"));
    command.args(["--threads", "2"]).args(arguments);
    command
}

/// Runs the program to its end.
fn clipguard(arguments: &[&str]) -> Ran {
    Ran::of(program(arguments).output().unwrap())
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A golden model folder; its vocabulary has 64 ids, so only pictures can be embedded.
fn golden(model: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/models");
    Path::new(root).join(model)
}

/// The smallest architecture with CLIP's vocabulary, as open_clip's JSON in `folder`.
fn tiny_architecture(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.json");
    let config = json!({
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
        },
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A checkpoint that was trained for two steps, made once for all tests.
fn tiny_model() -> &'static str {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path();
        let (model, run) = (tiny_architecture(folder), folder.join("run"));
        let data = "scenes:64:side=32";
        clipguard(&[
            "train",
            "--model",
            text(&model),
            "--data",
            data,
            "--steps",
            "2",
            "--batch",
            "8",
            "--out",
            text(&run),
        ])
        .ended(0, &[]);
        text(&run.join("checkpoint")).to_owned()
    })
}

/// A folder with the golden pictures `names`.
fn pictures(folder: &Path, names: &[&str]) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/pictures"));
    let target = folder.join("pictures");
    std::fs::create_dir_all(&target).unwrap();
    for name in names {
        std::fs::copy(root.join(name), target.join(name)).unwrap();
    }
    target
}

/// Names in a folder, hidden ones too.
fn listing(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}
