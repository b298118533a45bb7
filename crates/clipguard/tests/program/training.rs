//! Training from outside: parts, evaluation on the way, TensorBoard, and what becomes of the model.

use crate::{clipguard, golden, listing, text, tiny_model};
use serde_json::Value;
use std::{fs, path::Path};

fn lines(run: &Path) -> Vec<Value> {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Everything a recipe has beside the objective, in one run: its curves are in the report.
#[test]
fn a_run_is_evaluated_on_the_way_and_its_curves_are_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    let run = folder.path().join("run");
    let settings = format!(
        "objective = \"siglip\"\nmodel = {:?}\ndata = \"scenes:64:side=32\"\nsteps = 4\nbatch = 8\n\
         warmup = 1\ntrain = \"image\"\nprecision = \"bf16\"\nevaluate_every = 2\n\
         [evaluation]\ndata = \"scenes:40:side=32,part=instyle\"\nretrieval = \"scenes:20:side=32\"\n\
         samples = 16\ntemplates = \"scenes\"\n",
        tiny_model()
    );
    fs::write(&recipe, &settings).unwrap();
    let train = ["train", text(&recipe), "--micro-batch", "3", "--freeze", "visual.conv1.*"];
    clipguard(&[&train[..], &["--tensorboard", "--out", text(&run)]].concat())
        .ended(0, &["step 2: acc1 0", "image_retrieval_recall@1 0", "step 4:"]);
    let lines = lines(&run);
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert!(line["evaluation"]["acc1"].is_number(), "{line}");
        assert!(line["evaluation"]["text_retrieval_recall@10"].is_number(), "{line}");
        assert!(line["logit_bias"].as_f64().unwrap() < -9.0, "{line}");
    }
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("Accuracy on held-out pictures"));
    assert_eq!(listing(&run.join("tensorboard")), ["events.out.tfevents.0000000000.clipguard"]);
    let plan = fs::read_to_string(run.join("plan.toml")).unwrap();
    for word in ["micro_batch = 3", "[siglip]", "precision = \"bf16\"", "\"visual.conv1.*\""] {
        assert!(plan.contains(word), "{word}: {plan}");
    }
    let config = fs::read_to_string(run.join("checkpoint/open_clip_config.json")).unwrap();
    assert!(config.contains("\"init_logit_bias\": -10.0"), "{config}");

    // The evaluation is read before the folder is claimed.
    let (broken, out) = (settings.replace("scenes:40", "nowhere:40"), folder.path().join("none"));
    fs::write(&recipe, broken).unwrap();
    clipguard(&["train", text(&recipe), "--out", text(&out)]).ended(2, &["nowhere"]);
    assert!(!out.exists());
    fs::write(&recipe, settings).unwrap();
    clipguard(&["train", text(&recipe), "--freeze", "visuel.*", "--out", text(&out)])
        .ended(3, &["did you mean `visual.*`?"]);
}

#[test]
fn a_model_is_brought_to_another_size_and_precision() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("larger");
    let convert = ["convert", tiny_model(), "--image-size", "64", "--context", "30"];
    let told = clipguard(
        &[&convert[..], &["--precision", "bf16", "--json", "--out", text(&out)]].concat(),
    );
    let warnings = told.ended(0, &[]).json()["warnings"].to_string();
    assert!(warnings.contains("2x2 patches (32 px) resized to 4x4 (64 px)"), "{warnings}");
    assert!(warnings.contains("20 tokens resized to 30"), "{warnings}");
    let facts = clipguard(&["inspect", text(&out)]).ended(0, &[]).stdout;
    assert!(facts.contains("BF16") && facts.contains("64"), "{facts}");
    // Resized on the way or beforehand: the same answers, up to the 16 bits of the file.
    let classify = |model: &str, size: &[&str]| -> f64 {
        let pictures = ["--classes", "cat,dog", "--json", "scenes:1:side=64"];
        let told = clipguard(&[&["classify", "--model", model], size, &pictures].concat());
        told.ended(0, &[]).json()["top"][0]["probability"].as_f64().unwrap()
    };
    let exact = folder.path().join("exact");
    clipguard(&["convert", tiny_model(), "--image-size", "64", "--out", text(&exact)])
        .ended(0, &[]);
    let size = ["--image-size", "64"];
    assert_eq!(classify(text(&exact), &[]), classify(tiny_model(), &size));
    let other = folder.path().join("other");
    clipguard(&["convert", text(&golden("resnet")), "--image-size", "96", "--out", text(&other)])
        .ended(2, &["ResNet"]);
    assert!(!other.exists());
}

#[test]
fn probes_are_fitted_recorded_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, run) = (folder.path().join("plan.toml"), folder.path().join("run"));
    let probe = |method: &str, validation: &str| {
        format!(
            "[[probe]]\ntrain = \"scenes:80:side=32,part=instyle\"\ntest = \"scenes:30:side=32,\
             part=instyle\"\nmethod = {method:?}\nvalidation = {validation:?}\n"
        )
    };
    let settings = format!(
        "models = [{:?}]\n{}{}",
        tiny_model(),
        probe("logistic", ""),
        probe("reference", "scenes:20:side=32,part=instyle")
    );
    fs::write(&plan, settings).unwrap();
    let told = clipguard(&["--json", "evaluate", text(&plan), "--out", text(&run)]);
    let records = told.ended(0, &[]).json();
    let of = |task: &str| {
        let found = records.as_array().unwrap().iter().find(|r| r["task"] == task);
        found.unwrap_or_else(|| panic!("{task}: {records}")).clone()
    };
    assert_eq!(of("linear_probe_logistic")["metrics"]["c"], 0.316);
    assert!(of("linear_probe")["metrics"]["weight_decay"].as_f64().unwrap() >= 1e-6);
    assert_eq!(of("linear_probe")["n"], 30);
    assert!(of("linear_probe")["interval"].is_object());
    let out = folder.path().join("export");
    clipguard(&["report", text(&run), "--export", text(&out)]).ended(0, &[]);
    let table = fs::read_to_string(out.join("clip_benchmark.csv")).unwrap();
    assert!(table.starts_with("dataset,model,pretrained,task,language,model_fullname,c,fewshot_k"));
    assert_eq!(table.lines().count(), 3);
    assert_eq!(listing(&out.join("clip_benchmark")).len(), 2);
}
