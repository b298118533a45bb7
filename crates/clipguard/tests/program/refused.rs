//! Wrong usage (exit 2) and inputs that are refused (exit 3), each with what would be right.

use crate::{clipguard, golden, listing, text, tiny_architecture, tiny_model};
use std::path::Path;

#[test]
fn wrong_words_get_a_suggestion() {
    clipguard(&["clasify"]).ended(2, &["classify"]);
    clipguard(&["embed", "--modle", "x"]).ended(2, &["--model"]);
    let out = ["--images", "scenes:3", "--out", "o.safetensors"];
    let embed = |model: &str| clipguard(&[&["embed", "--model", model], &out[..]].concat());
    embed("ViT-B-23@w.safetensors").ended(2, &["ViT-B-23", "did you mean `ViT-B-32`?"]);
    embed("QQQ@w.safetensors").ended(2, &["clipguard inspect --architectures"]);
    clipguard(&["classify", "--classes", "imagnet1k", "x.jpg"]).ended(2, &["imagenet1k"]);
    clipguard(&["classify", "--model", tiny_model(), "embedded"]).ended(2, &["--classes cat,dog"]);
    for shard in ["3/3", "1", "a/b", "-1/3"] {
        clipguard(&["embed", "--images", "scenes:3", "--out", "o.safetensors", "--shard", shard])
            .ended(2, &[]);
    }
    let embed = |more: &[&str]| clipguard(&[&["embed", "--images", "scenes:3"], more].concat());
    embed(&["--layout", "safetensors", "--out", "folder"]).ended(2, &["folder.safetensors"]);
    embed(&["--layout", "clip-retrieval", "--out", "o.safetensors"]).ended(2, &["is a folder"]);
    embed(&["--texts", "t.txt", "--out", "folder"]).ended(2, &["rows of a folder are pairs"]);
}

#[test]
fn files_that_are_not_there_are_named() {
    for arguments in [
        &["inspect", "nowhere.jpg"][..],
        &["classify", "--model", tiny_model(), "--classes", "a,b", "nowhere.jpg"],
        &["embed", "--model", tiny_model(), "--images", "nowhere.jpg", "--out", "o.safetensors"],
        &["train", "nowhere.jpg", "--out", "run"],
    ] {
        clipguard(arguments).ended(3, &["nowhere.jpg"]);
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let source = golden("vit_gelu");
    for name in ["open_clip_config.json", "open_clip_model.safetensors"] {
        std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("open_clip_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let shape = header["visual.proj"]["shape"].clone();
    let (a, b) = (shape[0].as_u64().unwrap(), shape[1].as_u64().unwrap());
    header["visual.proj"]["shape"] = serde_json::json!([b, a]);
    let header = header.to_string();
    let whole = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]];
    std::fs::write(&path, whole.concat()).unwrap();
    let (found, wanted) = (format!("[{b}, {a}]"), format!("[{a}, {b}]"));
    assert_ne!(found, wanted);
    for command in ["inspect", "embed"] {
        let mut arguments = vec![command];
        if command == "embed" {
            arguments.extend(["--images", "scenes:3", "--out", "o.safetensors", "--model"]);
        }
        arguments.push(text(folder.path()));
        clipguard(&arguments).ended(3, &["visual.proj", &found, &wanted]);
    }
}

#[test]
fn classes_that_occur_twice_are_refused() {
    let classify = ["classify", "--model", tiny_model(), "scenes:3:side=32", "--classes"];
    clipguard(&[&classify[..], &["cat,dog,Cat"]].concat()).ended(3, &["twice", "1 and 3"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("classes.txt");
    std::fs::write(&file, "cat\ndog\ncat\n").unwrap();
    clipguard(&[&classify[..], &[text(&file)]].concat())
        .ended(3, &["classes.txt", "twice", "lines 1 and 3"]);
}

#[test]
fn an_unknown_key_of_a_recipe_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, "objective = \"clip\"\nstep = 5\n").unwrap();
    let run = folder.path().join("run");
    clipguard(&["train", text(&recipe), "--out", text(&run)])
        .ended(3, &["recipe.toml", "unknown field `step`", "steps"]);
    assert!(!run.exists());
}

/// A WebDataset archive of `count` small pictures with captions.
fn archive(path: &Path, count: usize) {
    // A PNG of one pixel.
    let png =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/pictures/one_pixel.png");
    let png = std::fs::read(png).unwrap();
    let mut bytes = Vec::new();
    for i in 0..count {
        for (extension, body) in [("png", png.as_slice()), ("txt", b"a cat")] {
            let mut head = [0u8; 512];
            let name = format!("{i:04}.{extension}");
            head[..name.len()].copy_from_slice(name.as_bytes());
            head[100..108].copy_from_slice(b"0000644\0");
            head[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
            head[136..148].copy_from_slice(b"00000000000\0");
            head[148..156].copy_from_slice(b"        ");
            head[156] = b'0';
            head[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
            head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_truncated_archive_costs_what_is_behind_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (tar, out) = (folder.path().join("a.tar"), folder.path().join("o.safetensors"));
    archive(&tar, 6);
    let embed =
        ["embed", "--json", "--model", tiny_model(), "--images", text(&tar), "--out", text(&out)];
    let whole = clipguard(&embed).ended(0, &[]).json();
    assert_eq!((&whole["images"], &whole["texts"]), (&6.into(), &6.into()));
    let bytes = std::fs::read(&tar).unwrap();
    // In the middle of the fifth picture.
    std::fs::write(&tar, &bytes[..4 * 2048 + 520]).unwrap();
    let cut = clipguard(&embed).ended(0, &["a.tar", "at byte"]).json();
    assert_eq!((&cut["images"], &cut["skipped"]["count"]), (&4.into(), &1.into()));
    std::fs::remove_file(&out).unwrap();
    clipguard(&[&embed[..], &["--strict"]].concat()).ended(3, &["a.tar"]);
    assert_eq!(listing(folder.path()), ["a.tar"]);
}

#[test]
fn a_finished_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_architecture(folder.path());
    let run = Path::new(tiny_model()).parent().unwrap();
    let arguments = ["train", "--model", text(&model), "--data", "scenes:9", "--out", text(run)];
    clipguard(&arguments).ended(3, &["holds a run already", "--resume"]);
}

#[test]
fn a_prior_of_another_width_and_no_prior_at_all_are_refused() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
    let prior = root.join("clipure/prior_tiny_state.safetensors");
    let spelled = |path: &Path| format!("clipure-diff:prior={}", text(path));
    let classify = |purifier: &str| {
        let classes = ["--classes", "cat,dog", "--purify", purifier, "scenes:2:side=32"];
        clipguard(&[&["classify", "--model", tiny_model()], &classes[..]].concat())
    };
    classify(&spelled(&prior)).ended(3, &["prior_tiny_state", "width 32", "diffusion-prior"]);
    let model = Path::new(tiny_model()).join("open_clip_model.safetensors");
    classify(&spelled(&model)).ended(3, &["open_clip_model", "another kind of model"]);
    classify(&spelled(Path::new("/nowhere/prior"))).ended(3, &["/nowhere/prior"]);
    classify("clipure-diff").ended(2, &["prior", "path"]);
    classify("clipure-cos:blank=imagenet1k").ended(0, &[]);
    classify("clipure-cos:blank=imagnet1k").ended(2, &["blank", "did you mean `imagenet1k`"]);
}

#[test]
fn templates_without_a_place_for_the_name_and_files_without_a_template_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("templates.txt");
    let classify = || {
        let classes = ["--classes", "cat,dog", "--templates", text(&file), "scenes:2:side=32"];
        clipguard(&[&["classify", "--model", tiny_model()], &classes[..]].concat())
    };
    std::fs::write(&file, "a photo of a {}.\na photo\n").unwrap();
    classify().ended(3, &["templates.txt", "line 2", "`a photo`", "no place for the class name"]);
    std::fs::write(&file, "# none of them is left\n\n").unwrap();
    classify().ended(3, &["templates.txt", "no template"]);
    std::fs::write(&file, "a photo of a {name}.\n").unwrap();
    classify().ended(3, &["templates.txt", "unknown placeholder `{name}`"]);
}

/// A golden model whose file holds the picture tower alone.
#[test]
fn a_model_without_a_text_tower_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = golden("vit_gelu");
    std::fs::copy(
        source.join("open_clip_config.json"),
        folder.path().join("open_clip_config.json"),
    )
    .unwrap();
    let bytes = std::fs::read(source.join("open_clip_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tower = file.tensors().into_iter().filter(|(name, _)| name.starts_with("visual."));
    let out = folder.path().join("open_clip_model.safetensors");
    safetensors::serialize_to_file(tower, None, &out).unwrap();
    for command in [
        &["classify", "--classes", "a,b", "scenes:2:side=32", "--model"][..],
        &["embed", "--images", "scenes:2:side=32", "--out", "o.safetensors", "--model"],
    ] {
        clipguard(&[command, &[text(folder.path())]].concat())
            .ended(3, &["open_clip_model", "without a text tower", "MODEL+FILE"]);
    }
    // Over the model it comes from it is that model.
    let embed = |model: &str, name: &str| {
        let out = folder.path().join(name);
        let images = ["--images", "scenes:2:side=32", "--no-captions", "--out", text(&out)];
        clipguard(&[&["embed", "--model", model], &images[..]].concat()).ended(0, &[]);
        let bytes = std::fs::read(&out).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        file.tensor("image").unwrap().data().to_vec()
    };
    let whole = embed(text(&source), "whole.safetensors");
    let spelling = format!("{}+{}", text(&source), text(&out));
    assert_eq!(embed(&spelling, "over.safetensors"), whole);
    let twice = format!("{}+{}", text(&source), text(&source.join("open_clip_model.safetensors")));
    let command = ["classify", "--classes", "a,b", "scenes:2:side=32", "--model", &twice];
    clipguard(&command).ended(3, &["a whole model"]);
}
