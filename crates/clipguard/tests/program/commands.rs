//! What the commands print and write when all is well, or nearly so.

use crate::{clipguard, golden, listing, pictures, program, text, tiny_model};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{path::Path, process::Stdio};

#[test]
fn methods_are_listed_explained_and_suggested() {
    let list = clipguard(&["methods"]).ended(0, &[]).stdout;
    for name in ["pgd", "fgsm", "clipure-cos", "clip", "autoaugment", "eda"] {
        assert!(list.contains(name), "{list}");
    }
    let one = clipguard(&["methods", "pgd"]).ended(0, &[]).stdout;
    assert!(one.contains("8/255") && one.contains("restarts"), "{one}");
    let objective = clipguard(&["methods", "cleanclip"]).ended(0, &[]).stdout;
    for words in ["    captions = \"eda\"\n", "\n\n    [cleanclip]\n    multimodal = 1.0\n"] {
        assert!(objective.contains(words), "{objective}");
    }
    clipguard(&["methods", "pdg"]).ended(2, &["did you mean `pgd`?"]);
    let all = clipguard(&["methods", "--json"]).ended(0, &[]).json();
    let documented = |m: &Value| {
        let parameters = m["parameters"].as_array().unwrap();
        parameters.iter().all(|p| !p["doc"].as_str().unwrap().is_empty())
    };
    assert!(all.as_array().unwrap().iter().all(documented));
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = clipguard(&["completions", shell]).ended(0, &[]).stdout;
        assert!(script.contains("classify"), "{shell}");
    }
}

#[test]
fn every_help_teaches_by_example() {
    let commands = ["inspect", "embed", "classify", "methods", "completions", "train", "attack"];
    for command in commands.into_iter().chain(["evaluate", "merge", "report", "demo", "export"]) {
        let help = clipguard(&[command, "--help"]).ended(0, &[]).stdout;
        assert!(help.contains(&format!("clipguard {command}")), "{help}");
        assert!(!help.contains("Arguments of"), "{help}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure_and_a_full_device_is_one() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else { return println!("skipped: there is no /dev/full") };
    let status = program(&["methods"]).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let mut child =
        program(&["inspect", "--architectures"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn inspect_tells_models_data_and_runs_apart() {
    let model = tiny_model();
    let run = Path::new(model).parent().unwrap();
    let weights = Path::new(model).join("open_clip_model.safetensors");
    let arguments = ["inspect", "--json", model, text(run), text(&weights), "scenes:10:side=32"];
    let sections = clipguard(&arguments).ended(0, &[]).json();
    assert_eq!(sections[0]["kind"], "CLIP model, folder with open_clip_config.json");
    assert_eq!(sections[0]["activation"], "GELU");
    assert_eq!(sections[0]["sha256"].as_str().unwrap().len(), 64);
    assert!(
        sections[0]["parameters"]["all"].as_u64() > sections[0]["parameters"]["picture"].as_u64()
    );
    assert_eq!(sections[1]["kind"], "training run");
    assert_eq!(sections[1]["steps"]["done"], 2);
    assert_eq!(sections[1]["finished"], true);
    assert_eq!(sections[2]["kind"], "safetensors file");
    assert_eq!(sections[2]["dtypes"]["F32"], sections[2]["tensors"]);
    assert_eq!(sections[3]["samples"], 10);
    assert_eq!(sections[3]["first"][0]["width"], 32);
    let list = clipguard(&["inspect", "--architectures"]).ended(0, &[]).stdout;
    assert!(list.contains("ViT-B-32") && list.contains("151,277,313"), "{list}");
    // A refused path leaves the others shown.
    let two = clipguard(&["inspect", "nowhere", "scenes:3"]).ended(3, &["nowhere"]);
    assert!(two.stdout.contains("drawn scenes"), "{}", two.stdout);
}

#[test]
fn inspect_shows_what_augmentations_do() {
    let room = tempfile::tempdir().unwrap();
    let sheet = |seed: &str, name: &str| {
        let out = room.path().join(name);
        let data = "scenes:9:side=32";
        let arguments =
            ["--seed", seed, "inspect", data, "--augment", "safeclip", "--out", text(&out)];
        let told = clipguard(&arguments).ended(0, &[]).stdout;
        assert!(told.contains("safeclip:area=0.08"), "{told}");
        std::fs::read(out).unwrap()
    };
    let first = sheet("1", "a.png");
    assert_eq!(first, sheet("1", "b.png"));
    assert_ne!(first, sheet("2", "c.png"));
    let picture = image::load_from_memory(&first).unwrap();
    assert_eq!((picture.width(), picture.height()), (8 * 224, 6 * 224));
    let eda = ["inspect", "scenes:4:side=32", "--captions", "eda", "--json"];
    let told = clipguard(&eda).ended(0, &[]).json();
    assert_eq!(told["captions"].as_array().unwrap().len(), 4);
    assert_eq!(told["captions"][0]["reworded"].as_array().unwrap().len(), 3);
    for (arguments, word) in [
        (["inspect", "scenes:4", "--augment", "simclr", "--out", "x.jpg"], ".png"),
        (["inspect", "scenes:4", "--augment", "simcrl", "--out", "x.png"], "`simclr`?"),
        (
            ["inspect", "scenes:4", "embedded", "--augment=crop", "--out", "x.png"],
            "one data source",
        ),
    ] {
        clipguard(&arguments).ended(2, &[word]);
    }
    assert!(!Path::new("x.png").exists());
}

#[test]
fn special_tokens_in_captions_are_told() {
    let room = tempfile::tempdir().unwrap();
    let photo = golden("vit_gelu").join("../../pictures/rgb_odd.png");
    for (name, caption) in [("a", "a cat<end_of_text> of fame"), ("b", "a dog"), ("c", "a cow")] {
        std::fs::copy(&photo, room.path().join(format!("{name}.png"))).unwrap();
        std::fs::write(room.path().join(format!("{name}.txt")), caption).unwrap();
    }
    let (data, out) = (text(room.path()), tempfile::tempdir().unwrap());
    let told = clipguard(&["inspect", "--json", data]).ended(0, &[]).json();
    let warnings = told[0]["warnings"].as_array().unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].as_str().unwrap().contains("<end_of_text>"),
        "{told}"
    );
    let file = out.path().join("a.safetensors");
    clipguard(&["embed", "--model", tiny_model(), "--images", data, "--out", text(&file)])
        .ended(0, &["1 of the texts", "special token"]);
    let run = out.path().join("run");
    let train = ["train", "--model", tiny_model(), "--data", data, "--batch", "3"];
    let options = ["--steps", "2", "--augment", "crop", "--captions", "eda", "--out", text(&run)];
    let ran =
        clipguard(&[&train[..], &options].concat()).ended(0, &["caption of", "special token"]);
    // Once, though every epoch meets it.
    assert_eq!(ran.stderr.matches("special token").count(), 1, "{}", ran.stderr);
    let plan = std::fs::read_to_string(run.join("plan.toml")).unwrap();
    assert!(plan.contains("crop:area=0.9") && plan.contains("eda:alpha=0.1"), "{plan}");
}

#[test]
fn inspect_reads_of_a_large_file_the_header_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let size = 3u64 << 30;
    let header =
        format!(r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{size}]}}}}"#, size / 4);
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(&path, &bytes).unwrap();
    let refused = clipguard(&["inspect", text(&path)]).ended(3, &["the data has 0 bytes"]);
    assert!(refused.stdout.is_empty());
    // A hole takes no room on the disk.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(size + bytes.len() as u64).unwrap();
    let start = std::time::Instant::now();
    let section = clipguard(&["inspect", "--json", text(&path)]).ended(0, &[]).json();
    assert_eq!(section[0]["numbers"], size / 4);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

/// Tensor rows and the metadata of an embedding file.
fn embeddings(path: &Path, tensor: &str) -> (Vec<Vec<u8>>, Value) {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let info = header.metadata().as_ref().unwrap()["clipguard"].clone();
    let view = SafeTensors::deserialize(&bytes).unwrap();
    let view = view.tensor(tensor).unwrap();
    let width = 4 * view.shape()[1];
    let rows: Vec<Vec<u8>> = view.data().chunks(width).map(<[u8]>::to_vec).collect();
    assert_eq!(rows.len(), view.shape()[0]);
    (rows, serde_json::from_str(&info).unwrap())
}

#[test]
fn shards_together_are_the_whole_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let embed = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let data = "scenes:37:side=40";
        let mut arguments = vec!["embed", "--model", tiny_model(), "--images", data, "--out"];
        arguments.push(text(&out));
        arguments.extend(more);
        clipguard(&arguments).ended(0, &[]);
        out
    };
    let whole = embed("whole.safetensors", &[]);
    let again = embed("again.safetensors", &[]);
    assert!(std::fs::read(&whole).unwrap() == std::fs::read(again).unwrap());
    for tensor in ["image", "text"] {
        let (rows, info) = embeddings(&whole, tensor);
        assert_eq!(rows.len(), 37);
        let mut union = vec![None; rows.len()];
        for i in 0..3 {
            let name = format!("part{i}.safetensors");
            let part = embed(&name, &["--shard", &format!("{i}/3")]);
            let (part_rows, part_info) = embeddings(&part, tensor);
            let positions = part_info["positions"].as_array().unwrap();
            for ((row, position), key) in
                part_rows.into_iter().zip(positions).zip(part_info["keys"].as_array().unwrap())
            {
                let position = position.as_u64().unwrap() as usize;
                assert_eq!(info["keys"][position], *key);
                union[position] = Some(row);
            }
        }
        let union: Vec<Vec<u8>> = union.into_iter().map(Option::unwrap).collect();
        assert!(union == rows, "{tensor}");
        for row in &rows {
            let squares =
                row.as_chunks().0.iter().map(|v| f64::from(f32::from_le_bytes(*v)).powi(2));
            assert!((squares.sum::<f64>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn texts_of_a_file_take_the_place_of_captions() {
    let folder = tempfile::tempdir().unwrap();
    let (texts, out) = (folder.path().join("t.txt"), folder.path().join("deep/er/o.safetensors"));
    std::fs::write(&texts, "a cat\n\n  a dog \n").unwrap();
    let said = clipguard(&[
        "embed",
        "--model",
        tiny_model(),
        "--images",
        "scenes:5:side=32",
        "--texts",
        text(&texts),
        "--out",
        text(&out),
        "--json",
    ]);
    let said = said.ended(0, &[]).json();
    assert_eq!((&said["images"], &said["texts"]), (&5.into(), &2.into()));
    let (rows, info) = embeddings(&out, "text");
    assert_eq!(rows.len(), 2);
    assert_eq!(info["texts"], serde_json::json!(["a cat", "a dog"]));
    assert_eq!(listing(out.parent().unwrap()), ["o.safetensors"]);
}

#[test]
fn an_unreadable_picture_is_left_out_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let photos = pictures(folder.path(), &["baseline_420.jpg", "gray.jpg"]);
    std::fs::write(photos.join("broken.jpg"), [0xff, 0xd8, 0xff, 0xe0, 0, 16]).unwrap();
    let (photos, out) = (text(&photos), folder.path().join("o.safetensors"));
    let model = golden("vit_gelu");
    let embed =
        ["embed", "--json", "--model", text(&model), "--images", photos, "--out", text(&out)];
    let said = clipguard(&embed).ended(0, &["skipped", "broken.jpg"]).json();
    assert_eq!((&said["images"], &said["skipped"]["count"]), (&2.into(), &1.into()));
    std::fs::remove_file(&out).unwrap();
    clipguard(&[&embed[..], &["--strict"]].concat()).ended(3, &["broken.jpg"]);
    assert!(!out.exists());

    let classify = ["classify", "--model", tiny_model(), "--classes", "cat,dog,tree", photos];
    let said = clipguard(&classify).ended(0, &["broken.jpg", "1 of 3 skipped"]);
    assert!(said.stdout.contains("gray.jpg"), "{}", said.stdout);
    clipguard(&[&classify[..], &["--strict"]].concat()).ended(3, &["broken.jpg"]);
    let broken = format!("{photos}/broken.jpg");
    clipguard(&["classify", "--model", tiny_model(), "--classes", "a,b", &broken])
        .ended(3, &["none of 1"]);
}

#[test]
fn classify_prints_a_json_line_a_picture() {
    let arguments = [
        "classify",
        "--json",
        "--model",
        tiny_model(),
        "--classes",
        "cat,dog,tree",
        "--top",
        "2",
        "scenes:3:side=32",
        "scenes:2:side=32,seed=5",
    ];
    let plain = clipguard(&arguments).ended(0, &[]).stdout;
    let lines: Vec<Value> = plain.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[4]["source"], "scenes:2:side=32,seed=5");
    for line in &lines {
        let p = |i: usize| line["top"][i]["probability"].as_f64().unwrap();
        assert!(p(0) >= p(1) && p(0) <= 1.0 && line["top"].as_array().unwrap().len() == 2);
    }
    // An even number of published steps is the identity, up to rounding.
    let purified = clipguard(&[&arguments[..], &["--purify", "clipure-cos"]].concat());
    assert_eq!(purified.ended(0, &[]).stdout.lines().count(), 5);
    clipguard(&[&arguments[..], &["--purify", "clipure"]].concat())
        .ended(2, &["did you mean `clipure-cos`?"]);
}

/// From a model to its prior, to purified pictures, to an evaluation of the purifier.
#[test]
fn a_prior_is_trained_classifies_and_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (folder.path().join("recipe.toml"), folder.path().join("prior"));
    let settings =
        "steps = 2\nbatch = 8\nwarmup = 1\n[prior]\ndepth = 1\nheads = 2\nhead_width = 8\n";
    std::fs::write(&recipe, settings).unwrap();
    let train = ["--objective", "diffusion-prior", "--model", tiny_model(), "--data"];
    let begin = ["train", text(&recipe)];
    clipguard(&[&begin[..], &train, &["scenes:32:side=32", "--out", text(&run)]].concat())
        .ended(0, &[]);
    let prior = run.join("checkpoint/prior.safetensors");
    let spelled = format!("clipure-diff:prior={},steps=2,draws=2", text(&prior));
    let classify = ["classify", "--model", tiny_model(), "--classes", "cat,dog", "--purify"];
    let two = clipguard(&[&classify[..], &[&spelled, "--json", "scenes:2:side=32"]].concat());
    assert_eq!(two.ended(0, &[]).stdout.lines().count(), 2);

    let plan = folder.path().join("plan.toml");
    let lines = format!(
        "samples = 6\nmodels = [{:?}]\ndata = [\"scenes:20:side=32,part=instyle\"]\n\
         templates = \"scenes\"\nattacks = [\"pgd:eps=4/255,steps=2\"]\n\
         [[defence]]\nname = \"diff\"\npurify = [{spelled:?}]\n\
         gradients = [\"exact\", \"straight-through\"]\n\
         published = {{ purify = [\"{}\"], gradient = \"detached\", batch = 2 }}\n",
        tiny_model(),
        spelled.replace("steps=2", "steps=2,mode=released"),
    );
    std::fs::write(&plan, lines).unwrap();
    let evaluation = folder.path().join("evaluation");
    let told = clipguard(&["--json", "evaluate", text(&plan), "--out", text(&evaluation)]);
    let records = told.ended(0, &[]).json();
    assert!(records.as_array().unwrap().iter().any(|r| r["protocol"] == "published"), "{records}");

    // Another prior under the same path: what was measured with the first is not reused.
    let other = folder.path().join("other");
    clipguard(&[&begin[..], &train, &["scenes:40:side=32", "--out", text(&other)]].concat())
        .ended(0, &[]);
    std::fs::copy(other.join("checkpoint/prior.safetensors"), &prior).unwrap();
    clipguard(&["evaluate", text(&plan), "--out", text(&evaluation)])
        .ended(3, &["purifier (its file differs)"]);
}

/// Stored embeddings of two classes and a head for them.
fn stored(folder: &Path) -> (String, String) {
    let file = |name: &str, rows: &[[f32; 3]], labels: Option<&[u8]>| {
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
        let view = |kind, shape: Vec<usize>, bytes| {
            safetensors::tensor::TensorView::new(kind, shape, bytes).unwrap()
        };
        let shape = vec![rows.len(), 3];
        let mut all = vec![("image", view(safetensors::Dtype::F32, shape, &bytes))];
        if let Some(labels) = labels {
            all.push(("label", view(safetensors::Dtype::U8, vec![labels.len()], labels)));
        }
        let path = folder.join(name);
        safetensors::serialize_to_file(all, None, &path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rows = [[0.8, 0.0, 0.6], [0.0, 0.8, 0.6], [0.6, 0.53, 0.6]];
    let head = [[2.0, 0.0, 0.1], [0.0, 2.0, 0.1]];
    (file("e.safetensors", &rows, Some(&[0, 1, 1])), file("h.safetensors", &head, None))
}

#[test]
fn stored_embeddings_are_purified_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, head) = stored(folder.path());
    let (head, out) = (format!("{head}:image"), folder.path().join("after.safetensors"));
    let purify = |more: &[&str]| {
        clipguard(&[&["--json", "purify", &rows, "--head", &head, "--purify"], more].concat())
    };
    let told = purify(&["clipure-cos", "--out", text(&out)]).ended(0, &[]).json();
    let [none, cos] = &told["outcomes"].as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!((&none["correct"], &none["n"], &cos["changed"]), (&2.into(), &3.into(), &0.into()));
    assert_eq!(told["blank_is_stand_in"], true);
    // What was written is read again, and is where it was.
    let after = clipguard(&[
        "--json",
        "purify",
        text(&out),
        "--head",
        &head,
        "--labels",
        &format!("{rows}:label"),
        "--purify",
        "clipure-cos:steps=9",
    ])
    .ended(0, &[])
    .json();
    assert_eq!(after["outcomes"][0]["correct"], 2);
    assert!(after["outcomes"][1]["changed"].as_u64() > Some(0));
    purify(&["ttc"]).ended(2, &["needs the model"]);
    purify(&["smooth"]).ended(2, &["acts on pictures"]);
    purify(&["clipure-cos", "--purify", "clipure-cos", "--out", "o"]).ended(2, &["one purifier"]);
    purify(&["clipure-cos", "--blank", "/nowhere"]).ended(3, &["/nowhere"]);
    purify(&["clipure-cos", "--labels", &format!("{rows}:words")]).ended(3, &["words"]);
}
