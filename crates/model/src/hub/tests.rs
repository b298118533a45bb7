//! The hub's client against a server of our own.

use super::*;
use crate::Checkpoint;
use serde_json::json;

#[path = "../../../data/tests/sources/server.rs"]
mod server;

use server::Server;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository, and a cache.
struct Hub {
    server: Server,
    settings: Settings,
    _cache: tempfile::TempDir,
}

fn place() -> Place {
    Place::parse("org/tiny").unwrap()
}

impl Hub {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self::answering(files, COMMIT)
    }

    /// A hub that says its files come from `commit`.
    fn answering(files: &[(&str, Vec<u8>)], commit: &str) -> Self {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        server.header("X-Repo-Commit", commit);
        let siblings: Vec<_> = files.iter().map(|(name, _)| json!({ "rfilename": name })).collect();
        let info = json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        server.put("/api/models/org/tiny/revision/main", info.as_bytes());
        for (name, bytes) in files {
            server.put(&format!("/org/tiny/resolve/main/{name}"), bytes);
        }
        let settings = Settings {
            endpoint: Some(server.url("")),
            cache: cache.path().join("hub"),
            token: Some("secret".to_owned()),
            offline: false,
        };
        Self { server, settings, _cache: cache }
    }

    fn fetch(&self) -> Result<(PathBuf, Vec<String>), ModelError> {
        self.settings.fetch(&place())
    }

    fn refusal(&self) -> (&'static str, String) {
        match self.fetch() {
            Err(ModelError::Hub { code, reason, .. }) => (code, reason),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn resolved(&self) -> usize {
        self.server.requests().iter().filter(|request| request.contains("/resolve/")).count()
    }
}

/// A file of a golden model.
fn golden(name: &str) -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/models");
    std::fs::read(Path::new(root).join(name)).unwrap()
}

fn open_clip() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", b"# tiny".to_vec()),
        (CONFIG, golden("vit_gelu/open_clip_config.json")),
        ("open_clip_model.safetensors", golden("vit_gelu/open_clip_model.safetensors")),
        ("open_clip_pytorch_model.bin", b"not asked for".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("folder/model.safetensors", b"not asked for".to_vec()),
    ]
}

#[test]
fn what_the_loader_reads_is_fetched_once() {
    let hub = Hub::new(&open_clip());
    let (folder, warnings) = hub.fetch().unwrap();
    assert!(folder.ends_with(format!("models--org--tiny/snapshots/{COMMIT}")));
    assert!(warnings.is_empty());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/models/vit_gelu");
    let fetched = Checkpoint::open(folder.to_str().unwrap()).unwrap();
    let local = Checkpoint::open(root).unwrap();
    assert_eq!((fetched.weights, fetched.digest), (local.weights, local.digest));
    let requests = hub.server.requests();
    for word in ["README", "pytorch", "/config.json", "folder/"] {
        assert!(!requests.iter().any(|request| request.contains(word)), "{word}: {requests:?}");
    }
    assert!(requests.iter().all(|request| request.contains("Bearer secret")), "{requests:?}");
    let count = hub.resolved();
    assert_eq!(hub.fetch().unwrap().0, folder);
    assert_eq!(hub.resolved(), count);

    let offline = Settings { offline: true, ..hub.settings.clone() };
    assert_eq!(offline.fetch(&place()).unwrap().0, folder);
    let by_commit = Place::parse(&format!("org/tiny@{COMMIT}")).unwrap();
    assert_eq!(offline.fetch(&by_commit).unwrap().0, folder);
    let other = Place::parse("org/other").unwrap();
    let error = offline.fetch(&other).unwrap_err();
    assert!(matches!(error, ModelError::Hub { code: "hub_offline", .. }), "{error}");
    // A hub that cannot be reached is no reason not to use what is here.
    hub.server.fail(1000);
    let (again, warnings) = hub.fetch().unwrap();
    assert_eq!(again, folder);
    assert!(warnings[0].contains("500") && warnings[0].contains("cache"), "{warnings:?}");
}

#[test]
fn shards_come_with_their_index() {
    let index = json!({ "weight_map": { "a": "model-1.safetensors", "b": "model-2.safetensors" } });
    let mut files = vec![
        ("config.json", b"{}".to_vec()),
        ("preprocessor_config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.to_string().into_bytes()),
        ("model-1.safetensors", vec![1; 100]),
        ("model-2.safetensors", vec![2; 100]),
        ("model-3.safetensors", vec![3; 100]),
    ];
    let (folder, _) = Hub::new(&files).fetch().unwrap();
    assert_eq!(folder.file_name().unwrap(), COMMIT);
    let hub = Hub::new(&files);
    let (folder, _) = hub.fetch().unwrap();
    assert_eq!(std::fs::read(folder.join("model-2.safetensors")).unwrap(), [2; 100]);
    assert!(folder.join("preprocessor_config.json").is_file());
    assert!(!folder.join("model-3.safetensors").exists());
    files.remove(4);
    assert!(Hub::new(&files).refusal().1.contains("model-2.safetensors"));
    files[2].1 = json!({ "weight_map": { "a": "../../x" } }).to_string().into_bytes();
    assert_eq!(Hub::new(&files).refusal().0, "hub_no_model");
}

#[test]
fn what_cannot_be_had_or_believed_is_refused_by_a_stable_code() {
    assert_eq!(Hub::new(&[("README.md", vec![])]).refusal().0, "hub_no_model");
    assert_eq!(Hub::new(&[(CONFIG, b"{}".to_vec())]).refusal().0, "hub_no_model");
    let hub = Hub::new(&[]);
    hub.server.remove("/api/models/org/tiny/revision/main");
    assert_eq!(hub.refusal().0, "hub_not_found");
    hub.server.put("/api/models/org/tiny/revision/main", b"no json");
    assert_eq!(hub.refusal().0, "hub_unreachable");
    hub.server.put("/api/models/org/tiny/revision/main", br#"{"sha":"../x","siblings":[]}"#);
    assert_eq!(hub.refusal().0, "hub_unsafe_name");

    // Headers of a server that lies, and what becomes of them.
    let cases = [
        ("X-Linked-Etag", "../../../evil", "hub_unsafe_name"),
        ("X-Linked-Etag", &"0".repeat(64), "hub_broken_file"),
        ("Content-Range", "bytes 0-0/10", "hub_too_large"),
        ("Content-Range", "bytes 0-0/99999999999999", "hub_too_large"),
    ];
    for (name, value, code) in cases {
        let hub = Hub::new(&open_clip());
        hub.server.header(name, value);
        assert_eq!(hub.refusal().0, code, "{name}: {value}");
        assert!(!hub.settings.cache.join("../evil").exists());
        let snapshot = hub.settings.cache.join("models--org--tiny/snapshots").join(COMMIT);
        assert!(!snapshot.join(CONFIG).exists(), "{value}");
    }
    assert_eq!(Hub::answering(&open_clip(), "another").refusal().0, "hub_changed");
}

#[test]
fn names_are_checked_before_anybody_is_asked() {
    for wrong in ["", "a/b/c", "../x", "a/..", "a b", "a/b@", "a/b@../x", "a/b@x y", "/a"] {
        let error = Place::parse(wrong).unwrap_err().to_string();
        assert!(error.contains("hf:ORG/NAME") || error.contains("revision"), "{wrong}: {error}");
    }
    let place = Place::parse("laion/CLIP-ViT-B-32@refs/pr/1").unwrap();
    assert_eq!(
        (place.name.as_str(), place.revision.as_str()),
        ("laion/CLIP-ViT-B-32", "refs/pr/1")
    );
    assert_eq!(Place::parse("gpt2").unwrap().revision, "main");
}
