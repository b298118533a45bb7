//! Every recipe and plan of `experiments/` can be read, those that nobody has run among them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use clipguard_evaluate::Plan;
use clipguard_train::Recipe;
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.extend(path.extension().is_some_and(|e| e == "toml").then_some(path)),
        }
    }
    found.sort();
    found
}

#[test]
fn every_experiment_parses_and_its_first_lines_say_how_to_run_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let (mut plans, mut recipes) = (0, 0);
    for path in files(&root) {
        let text = std::fs::read_to_string(&path).unwrap();
        let command = match text.lines().any(|line| line.starts_with("objective = ")) {
            true => {
                Recipe::parse(&text, &path).unwrap();
                recipes += 1;
                "clipguard train "
            }
            false => {
                Plan::parse(&text, &path).unwrap();
                plans += 1;
                "clipguard evaluate "
            }
        };
        let name = path.strip_prefix(root.parent().unwrap()).unwrap().display().to_string();
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let said = head.iter().any(|line| line.contains(command) && line.contains(&name));
        assert!(said, "{name}: no line `# {command}{name} ...` at its head");
    }
    assert!(plans > 3 && recipes > 3, "{plans} plans and {recipes} recipes");
}
