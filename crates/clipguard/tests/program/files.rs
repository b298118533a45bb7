//! Data and models in and out: formats, layouts, and servers.

use crate::{Ran, clipguard, golden, listing, program, text, tiny_model};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

#[path = "../../../data/tests/sources/server.rs"]
mod server;

use server::Server;

/// All files below a folder with their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in listing(folder) {
        let path = folder.join(&name);
        match path.is_dir() {
            true => {
                let inside = files(&path).into_iter();
                found.extend(inside.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
            }
            false => drop(found.insert(name, std::fs::read(&path).unwrap())),
        }
    }
    found
}

/// The first samples as `inspect` tells them.
fn first(source: &str) -> Value {
    let told = clipguard(&["inspect", "--json", source]).ended(0, &[]).json();
    let strip = |row: &Value| json!([row["width"], row["height"], row["class"], row["caption"]]);
    told[0]["first"].as_array().unwrap().iter().map(strip).collect()
}

#[test]
fn what_is_exported_is_read_back() {
    let room = tempfile::tempdir().unwrap();
    let data = "scenes:12:side=32";
    let expected = first(data);
    for format in ["webdataset", "parquet", "png"] {
        let out = room.path().join(format);
        let arguments = ["export", data, "--per-shard", "5", "--format", format, "--json"];
        let told = clipguard(&[&arguments[..], &["--out", text(&out)]].concat());
        let told = told.ended(0, &[]).json();
        assert_eq!((&told["samples"], &told["shards"]), (&json!(12), &json!(3)));
        let back = told["data"].as_str().unwrap();
        let about = clipguard(&["inspect", "--json", back]).ended(0, &[]).json();
        assert_eq!(about[0]["samples"], 12, "{back}");
        if format != "png" {
            assert_eq!(first(back), expected, "{back}");
        }
        // Once more: nothing changes. Something else: refused.
        let before = files(&out);
        clipguard(&[&arguments[..], &["--out", text(&out)]].concat()).ended(0, &[]);
        assert_eq!(files(&out), before);
        clipguard(&["export", "scenes:3", "--format", format, "--out", text(&out)])
            .ended(3, &["another export"]);
    }
    let told = clipguard(&["export", "nowhere", "--out", text(&room.path().join("x"))]);
    told.ended(3, &["nowhere"]);
    clipguard(&["export", data, "--format", "zip", "--out", "x"]).ended(2, &["webdataset"]);
}

#[test]
fn parts_of_embeddings_depend_neither_on_shards_nor_on_interruptions() {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name);
    let embed = |out: &Path, more: &[&str]| {
        let data = ["--images", "scenes:23:side=32", "--part-size", "5", "--batch", "4"];
        let out = ["--out", text(out), "--json"];
        clipguard(&[&["embed", "--model", tiny_model()], &data[..], &out, more].concat())
    };
    let whole = path("whole");
    let told = embed(&whole, &[]).ended(0, &[]).json();
    assert_eq!(
        (&told["images"], &told["parts"], &told["texts"]),
        (&json!(23), &json!(5), &json!(23))
    );
    let all = files(&whole);
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    assert_eq!(names[..2], ["embed.json", "img_emb/img_emb_0.npy"]);
    assert_eq!(names.len(), 1 + 3 * 5);
    let array = &all["img_emb/img_emb_4.npy"];
    let head = String::from_utf8_lossy(&array[10..128]);
    assert!(head.contains("'<f2'") && head.contains("(3, 16)"), "{head}");
    assert_eq!(array.len(), 128 + 3 * 16 * 2);

    let shards = path("shards");
    embed(&shards, &["--shard", "1/2"]).ended(0, &[]);
    embed(&shards, &["--shard", "0/2"]).ended(0, &[]);
    assert_eq!(files(&shards), all);
    // A part that is missing is computed again, and it alone.
    std::fs::remove_file(whole.join("metadata/metadata_2.parquet")).unwrap();
    std::fs::write(whole.join("img_emb/img_emb_2.npy"), b"half").unwrap();
    let told = embed(&whole, &[]).ended(0, &[]).json();
    assert_eq!((&told["images"], &told["parts"]), (&json!(5), &json!(1)));
    assert_eq!(files(&whole), all);
    embed(&whole, &["--dtype", "f32"]).ended(3, &["another `dtype`"]);
    embed(&whole, &["--precision", "bf16"]).ended(3, &["another `precision`"]);
    // The metadata are a table as any other: the pictures' names and captions.
    let table = format!(
        "{}#image=image_path,caption=caption",
        whole.join("metadata/metadata_0.parquet").display()
    );
    let told = clipguard(&["inspect", &table]);
    assert!(told.stderr.contains("00000"), "{}", told.stderr);

    let bare = path("bare");
    embed(&bare, &["--no-captions", "--dtype", "f32"]).ended(0, &[]);
    let names = files(&bare);
    assert!(!names.keys().any(|name| name.contains("text_emb")));
    assert_eq!(names["img_emb/img_emb_0.npy"].len(), 128 + 5 * 16 * 4);
}

/// Runs the program with variables of the environment.
fn with(variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = program(arguments);
    let names = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_HOME"];
    for name in names {
        command.env_remove(name);
    }
    Ran::of(command.envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn buckets_are_read_with_and_without_credentials() {
    let (server, room) = (Server::start(), tempfile::tempdir().unwrap());
    let export = |format: &str| {
        let out = room.path().join(format);
        let arguments = ["export", "scenes:9:side=32", "--per-shard", "4", "--format", format];
        clipguard(&[&arguments[..], &["--out", text(&out)]].concat()).ended(0, &[]);
        for (name, bytes) in files(&out) {
            server.put(&format!("/bucket/{format}/{name}"), &bytes);
        }
    };
    export("webdataset");
    export("parquet");
    let endpoint = server.url("");
    let keys = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "me"),
        ("AWS_SECRET_ACCESS_KEY", "word"),
    ];
    for data in ["s3://bucket/parquet/", "s3://bucket/parquet/{00000..00002}.parquet"] {
        let told = with(&keys, &["inspect", "--json", data]).ended(0, &[]).json();
        assert_eq!(told[0]["samples"], 9, "{data}");
    }
    assert!(server.requests().iter().all(|request| request.contains("AWS4-HMAC-SHA256")));
    let out = room.path().join("back");
    let data = "s3://bucket/webdataset/";
    let export = ["export", data, "--format", "parquet", "--out", text(&out)];
    let before = server.requests().len();
    with(&keys[..1], &export).ended(0, &[]);
    assert!(server.requests()[before..].iter().all(|request| !request.contains("AWS4")));
    let told = clipguard(&["inspect", "--json", text(&out.join("00000.parquet"))]).ended(0, &[]);
    assert_eq!(told.json()[0]["samples"], 9);
    let told = with(&keys, &["inspect", "s3://bucket/absent.tar"]);
    told.ended(3, &["s3://bucket/absent.tar: no such file"]);
    with(&keys, &["inspect", "s3://bucket/nothing/"]).ended(2, &["none of which"]);
}

#[test]
fn a_server_that_stalls_is_asked_again_and_then_named() {
    let (server, room) = (Server::start(), tempfile::tempdir().unwrap());
    let out = room.path().join("shards");
    clipguard(&["export", "scenes:4:side=32", "--out", text(&out)]).ended(0, &[]);
    let (_, bytes) = files(&out).into_iter().next().unwrap();
    server.put("/a.tar", &bytes);
    let url = server.url("/a.tar");
    let back = room.path().join("back");
    let export = ["export", &url, "--out", text(&back)];
    let short = [("CLIPGUARD_PATIENCE", "1")];
    server.stall(1);
    with(&short, &export).ended(0, &[]);
    let told = clipguard(&["inspect", "--json", text(&back.join("00000.tar"))]).ended(0, &[]);
    assert_eq!(told.json()[0]["samples"], 4);
    server.stall(1000);
    std::fs::remove_dir_all(&back).unwrap();
    let told = with(&short, &export);
    assert_ne!(told.code, 0, "{}", told.stderr);
    told.ended(3, &["a.tar", "stalled", "1 s", "CLIPGUARD_PATIENCE"]);
}

#[test]
fn models_come_from_the_hub() {
    let (server, room) = (Server::start(), tempfile::tempdir().unwrap());
    let commit = "c".repeat(40);
    server.header("X-Repo-Commit", &commit);
    let names = ["config.json", "model.safetensors", "preprocessor_config.json"];
    let siblings: Vec<Value> = names.iter().map(|name| json!({ "rfilename": name })).collect();
    let info = json!({ "sha": commit, "siblings": siblings }).to_string();
    server.put("/api/models/org/hf/revision/main", info.as_bytes());
    for name in names {
        let bytes = std::fs::read(golden("hf").join(name)).unwrap();
        server.put(&format!("/org/hf/resolve/main/{name}"), &bytes);
    }
    let (endpoint, home) = (server.url(""), room.path().join("home"));
    let hub = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HOME", text(&home))];
    let inspect = ["inspect", "--json", "hf:org/hf"];
    let told = with(&hub, &inspect).ended(0, &[]).json();
    assert_eq!(told[0]["kind"], "CLIP model, config.json, from the hub");
    let local = clipguard(&["inspect", "--json", text(&golden("hf"))]).ended(0, &[]).json();
    assert_eq!(told[0]["sha256"], local[0]["sha256"]);
    let out = room.path().join("o.safetensors");
    let embed = ["embed", "--model", "hf:org/hf", "--images", "scenes:2:side=32", "--no-captions"];
    with(&hub, &[&embed[..], &["--out", text(&out)]].concat()).ended(0, &[]);
    let offline = [("HF_HUB_OFFLINE", "1"), ("HF_HOME", text(&home))];
    with(&offline, &inspect).ended(0, &[]);
    with(&offline, &["inspect", "hf:org/other"]).ended(3, &["hf:org/other", "HF_HUB_OFFLINE"]);
    with(&hub, &["inspect", "hf:org/other"]).ended(3, &["no such repository"]);
    with(&hub, &["inspect", "hf:../x"]).ended(3, &["hf:ORG/NAME"]);
}
