//! Models from Hugging Face's hub: `hf:ORG/NAME`, `hf:ORG/NAME@REVISION`.
//!
//! What is fetched is what the loader reads and nothing else: one configuration, the preparation
//! of pictures, and the weights, in the cache and the layout that Hugging Face's own programs use.
//! A commit is resolved first and every file has to come from it. A server is not believed: names
//! and tags that would lead out of the cache are refused, sizes are compared with limits before and
//! while a file is fetched, and files that carry their SHA-256 are checked against it.

use crate::{
    ModelError,
    checkpoint::{CONFIG, WEIGHT_FILES, hex},
    container::strict,
    hugging_face,
};
use hf_hub::{
    Cache, Repo, RepoType,
    api::{
        Progress,
        sync::{Api, ApiBuilder, ApiError, ApiRepo},
    },
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    env,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

/// Largest configuration or index.
const MAX_TEXT: u64 = 64 << 20;
/// Largest weight file.
const MAX_WEIGHTS: u64 = 64 << 30;
/// Files in a repository.
const MAX_FILES: usize = 100_000;
/// How often a download that breaks off is taken up again.
const RETRIES: usize = 3;

/// Which repository, at which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    revision: String,
}

/// Where the hub and its cache are.
#[derive(Clone, Debug)]
struct Settings {
    endpoint: Option<String>,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
}

/// Fetches what a spelling behind `hf:` names, and returns the folder it lies in and what should
/// be known about it.
pub(crate) fn fetch(spelling: &str) -> Result<(PathBuf, Vec<String>), ModelError> {
    let place = Place::parse(spelling)?;
    Settings::from_env(&place)?.fetch(&place)
}

impl Place {
    fn parse(spelling: &str) -> Result<Self, ModelError> {
        let wrong = |reason: &str| ModelError::Spelling {
            spelling: format!("hf:{}", clipguard_data::shown(spelling)),
            reason: reason.to_owned(),
        };
        let (name, revision) = spelling.split_once('@').unwrap_or((spelling, "main"));
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_plain(part)) {
            return Err(wrong("expected hf:ORG/NAME or hf:ORG/NAME@REVISION"));
        }
        if !revision.split('/').all(is_plain) {
            return Err(wrong("a revision is a branch, a tag or a commit"));
        }
        Ok(Self { name: name.to_owned(), revision: revision.to_owned() })
    }

    fn refuse(&self, code: &'static str, reason: impl Into<String>) -> ModelError {
        ModelError::Hub { repository: self.name.clone(), code, reason: reason.into() }
    }

    /// An error of the client in our words.
    fn failed(&self, error: &ApiError) -> ModelError {
        let text = error.to_string();
        let status = |number: &str| text.ends_with(&format!("status: {number}"));
        match () {
            () if status("401") || status("403") => self.refuse(
                "hub_denied",
                "the hub refuses: there is no such repository, or it needs a token (HF_TOKEN)",
            ),
            () if status("404") => {
                let reason =
                    format!("the hub has no such repository or revision `{}`", self.revision);
                self.refuse("hub_not_found", reason)
            }
            () => self.refuse("hub_unreachable", clipguard_data::shown(&text)),
        }
    }
}

/// Whether a text is one component of a path, without any trick.
fn is_plain(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=128).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('.')
}

impl Settings {
    /// The variables that Hugging Face's programs read.
    fn from_env(place: &Place) -> Result<Self, ModelError> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
            let base = set("XDG_CACHE_HOME").map(PathBuf::from);
            let base = base.or_else(|| Some(env::home_dir()?.join(".cache")));
            base.map(|cache| cache.join("huggingface"))
        });
        let cache = set("HF_HUB_CACHE").map(PathBuf::from);
        let cache = cache.or_else(|| Some(home.as_ref()?.join("hub"))).ok_or_else(|| {
            place.refuse("hub_no_cache", "there is no home folder; set HF_HUB_CACHE to a folder")
        })?;
        let kept = || {
            let text = std::fs::read_to_string(home.as_ref()?.join("token")).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let offline = set("HF_HUB_OFFLINE").map(|value| value.to_ascii_lowercase());
        Ok(Self {
            endpoint: set("HF_ENDPOINT"),
            // The client asks for paths that do not depend on where it stands.
            cache: std::path::absolute(&cache).unwrap_or(cache),
            token: set("HF_TOKEN").or_else(kept),
            offline: offline.is_some_and(|v| matches!(v.as_str(), "1" | "on" | "yes" | "true")),
        })
    }

    fn fetch(&self, place: &Place) -> Result<(PathBuf, Vec<String>), ModelError> {
        let repo = Repo::with_revision(place.name.clone(), RepoType::Model, place.revision.clone());
        if self.offline {
            return self.cached(place, &repo).map(|folder| (folder, Vec::new())).ok_or_else(|| {
                place.refuse("hub_offline", "is not in the cache, and HF_HUB_OFFLINE is set")
            });
        }
        match (Download::begin(self, place, &repo), self.cached(place, &repo)) {
            (Ok(download), _) => Ok((download.all()?, Vec::new())),
            (Err(error @ ModelError::Hub { code: "hub_unreachable", .. }), Some(folder)) => {
                let warning = format!("{error}; the copy in the cache is taken");
                Ok((folder, vec![warning]))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The folder of the commit that the cache knows for the revision.
    fn cached(&self, place: &Place, repo: &Repo) -> Option<PathBuf> {
        let folder = self.cache.join(repo.folder_name());
        let known = std::fs::read_to_string(folder.join("refs").join(&place.revision)).ok();
        let commit = known.unwrap_or_else(|| place.revision.clone());
        let commit = commit.trim();
        let snapshot = folder.join("snapshots").join(commit);
        (is_plain(commit) && snapshot.is_dir()).then_some(snapshot)
    }
}

/// The files of one commit on their way.
struct Download<'a> {
    place: &'a Place,
    api: Api,
    repo: ApiRepo,
    commit: String,
    /// Where they will lie.
    folder: PathBuf,
    /// The names at the top of the repository.
    names: BTreeSet<String>,
}

impl<'a> Download<'a> {
    /// Asks for the commit and its files.
    fn begin(settings: &Settings, place: &'a Place, repo: &Repo) -> Result<Self, ModelError> {
        let cache = Cache::new(settings.cache.clone());
        let mut builder = ApiBuilder::from_cache(cache.clone())
            .with_token(settings.token.clone())
            .with_retries(RETRIES)
            .with_progress(false)
            .with_user_agent("clipguard", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let api = builder.build().map_err(|error| place.failed(&error))?;
        let files = api.repo(repo.clone());
        let info = guarded(place, || files.info())?;
        if !is_plain(&info.sha) || info.siblings.len() > MAX_FILES {
            return Err(place.refuse("hub_unsafe_name", "the hub names no commit"));
        }
        let names = info.siblings.into_iter().map(|file| file.rfilename);
        let names = names.filter(|name| is_plain(name)).collect();
        let folder = cache.repo(repo.clone()).pointer_path(&info.sha);
        Ok(Self { place, api, repo: files, commit: info.sha, folder, names })
    }

    /// Fetches what the loader reads.
    fn all(&self) -> Result<PathBuf, ModelError> {
        let has = |name: &&str| self.names.contains(*name);
        let config = [CONFIG, hugging_face::CONFIG].into_iter().find(has).ok_or_else(|| {
            let reason = format!(
                "holds neither `{CONFIG}` (open_clip) nor `{}` (transformers)",
                hugging_face::CONFIG
            );
            self.place.refuse("hub_no_model", reason)
        })?;
        self.file(config, MAX_TEXT)?;
        if config == hugging_face::CONFIG && has(&"preprocessor_config.json") {
            self.file("preprocessor_config.json", MAX_TEXT)?;
        }
        let others = || {
            let with = |end: &str| self.names.iter().find(|name| name.ends_with(end));
            with(".safetensors").or_else(|| with(".bin")).or_else(|| with(".pt"))
        };
        let weights = WEIGHT_FILES.into_iter().find(has);
        let weights = weights.or_else(|| others().map(String::as_str)).ok_or_else(|| {
            self.place.refuse("hub_no_model", "holds a configuration and no weights")
        })?;
        if !weights.ends_with(".index.json") {
            self.file(weights, MAX_WEIGHTS)?;
            return Ok(self.folder.clone());
        }
        for shard in self.shards(&self.file(weights, MAX_TEXT)?)? {
            self.file(&shard, MAX_WEIGHTS)?;
        }
        Ok(self.folder.clone())
    }

    /// The files an index names.
    fn shards(&self, index: &Path) -> Result<BTreeSet<String>, ModelError> {
        let bytes = std::fs::read(index)
            .map_err(|source| ModelError::Io { path: index.to_owned(), source })?;
        let refuse = |reason: String| self.place.refuse("hub_no_model", reason);
        let value = strict(&bytes, "the index").map_err(|r| refuse(r.reason))?;
        let map = value.get("weight_map").and_then(|map| map.as_object());
        let map = map.ok_or_else(|| refuse("the index has no `weight_map`".to_owned()))?;
        let names = map.values().map(|file| file.as_str().unwrap_or_default());
        names
            .map(|name| match self.names.contains(name) {
                true => Ok(name.to_owned()),
                false => {
                    let shown = clipguard_data::shown(name);
                    Err(refuse(format!("its index names `{shown}`, which is not there")))
                }
            })
            .collect()
    }

    /// Fetches one file, unless it is in the cache.
    fn file(&self, name: &str, most: u64) -> Result<PathBuf, ModelError> {
        let (path, place) = (self.folder.join(name), self.place);
        if path.is_file() {
            return Ok(path);
        }
        let facts = guarded(place, || self.api.metadata(&self.repo.url(name)))?;
        if facts.commit_hash() != self.commit {
            let reason = format!("`{name}` comes from another commit; it changed meanwhile");
            return Err(place.refuse("hub_changed", reason));
        }
        let tag = facts.etag();
        if !is_plain(tag) {
            let reason = format!("`{name}` has the tag `{}`", clipguard_data::shown(tag));
            return Err(place.refuse("hub_unsafe_name", reason));
        }
        let size = facts.size() as u64;
        if size > most {
            let reason = format!("`{name}` has {size} bytes, at most {most} are fetched");
            return Err(place.refuse("hub_too_large", reason));
        }
        guarded(place, || self.repo.download_with_progress(name, Watch { left: size }))?;
        self.check(&path, tag, size).inspect_err(|_| {
            // A broken copy must not be found next time; what it points to neither.
            let _ = path.canonicalize().map(std::fs::remove_file);
            let _ = std::fs::remove_file(&path);
        })?;
        Ok(path)
    }

    /// Whether a file is what was promised. Large files are tagged with their SHA-256.
    fn check(&self, path: &Path, tag: &str, size: u64) -> Result<(), ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        let broken = |reason: String| Err(self.place.refuse("hub_broken_file", reason));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if found != size {
            return broken(format!("`{name}` came with {found} of {size} bytes"));
        }
        if tag.len() != 64 || !tag.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(());
        }
        let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut piece).map_err(io)? {
                0 => break,
                n => hash.update(&piece[..n]),
            }
        }
        match hex(&hash.finalize()).eq_ignore_ascii_case(tag) {
            true => Ok(()),
            false => broken(format!("`{name}` is not what its SHA-256 says")),
        }
    }
}

/// Ends a download that is longer than was said.
struct Watch {
    left: u64,
}

/// What [`Watch`] unwinds with.
struct TooLong;

impl Progress for Watch {
    fn init(&mut self, size: usize, _name: &str) {
        self.left = size as u64;
    }

    fn update(&mut self, size: usize) {
        match self.left.checked_sub(size as u64) {
            Some(left) => self.left = left,
            // The client has no other way to be told; nothing is printed.
            None => resume_unwind(Box::new(TooLong)),
        }
    }

    fn finish(&mut self) {}
}

/// Calls the client, whose surprises at what a server says are panics.
fn guarded<T>(place: &Place, work: impl FnOnce() -> Result<T, ApiError>) -> Result<T, ModelError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| place.failed(&error)),
        Err(panic) if panic.is::<TooLong>() => {
            Err(place.refuse("hub_too_large", "a file goes on behind the end that was promised"))
        }
        Err(_) => Err(place.refuse("hub_unreachable", "the server's answer is no hub's")),
    }
}

#[cfg(test)]
mod tests;
