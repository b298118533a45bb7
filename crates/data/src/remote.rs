//! Files behind URLs: `s3://BUCKET/KEY`, `http://...`, `https://...`.
//!
//! A file is read in blocks that grow from 64 KB to 8 MB while reading goes on, each a request of
//! its own. So nothing is open while the consumer works, a stalled server costs one block, and a
//! reader that wants only the head of a file does not pay for more. Every request after the first
//! names the version of the file: one that changes meanwhile is an error, not a mixture.
//!
//! The clients underneath are asynchronous. Readers here are plain blocking ones: a runtime of one
//! thread, driven by whoever waits.

use crate::{DataError, shown};
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::AmazonS3Builder, http::HttpBuilder, path::Path as Key,
};
use std::{
    collections::HashMap,
    error::Error as _,
    future::Future,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};

/// First block of a reader.
const SMALLEST: u64 = 64 << 10;
/// Largest block.
const LARGEST: u64 = 8 << 20;
/// Most bytes of one request that is asked for as a whole.
const MOST: usize = 2 << 30;
/// How often a request is repeated.
const RETRIES: usize = 4;
/// A server that sends nothing for so many seconds has stalled, unless the variable says otherwise.
const PATIENCE: u64 = 30;
/// The variable.
const PATIENCE_SET: &str = "CLIPGUARD_PATIENCE";

/// How long a server may send nothing.
fn patience() -> Duration {
    let set = std::env::var(PATIENCE_SET).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(set.filter(|seconds| *seconds > 0).unwrap_or(PATIENCE))
}

/// Whether a spelling is an URL that is read here.
pub(crate) fn is_url(spelling: &str) -> bool {
    ["s3://", "http://", "https://"].iter().any(|scheme| spelling.starts_with(scheme))
}

/// A file behind an URL.
pub(crate) struct Object {
    store: Arc<dyn ObjectStore>,
    key: Key,
    length: u64,
    /// The version that was found.
    version: Option<String>,
}

/// A store is a pool of connections, so there is one a server and bucket.
type Stores = Mutex<HashMap<String, Arc<dyn ObjectStore>>>;

impl Object {
    /// Asks the server for a file's length and version.
    pub(crate) fn find(url: &str) -> Result<Self, DataError> {
        let (store, key) = store(url)?;
        let facts = wait(store.head(&key)).map_err(|error| refused(url, error))?;
        let facts = facts.map_err(|error| match error {
            object_store::Error::NotFound { .. } => {
                DataError::Missing { path: url.into(), hint: String::new() }
            }
            error => refused(url, failure(&error)),
        })?;
        Ok(Self { store, key, length: facts.size, version: facts.e_tag })
    }

    /// Its length in bytes, as the server says.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn reader(self: Arc<Self>, start: u64) -> Reader {
        Reader { object: self, position: start, block: Vec::new(), begin: 0, next: SMALLEST }
    }

    /// `length` bytes from `start` on.
    pub(crate) fn read_at(&self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        if length == 0 {
            return Ok(Vec::new());
        }
        if length > MOST {
            return Err(io::Error::other(format!("{length} bytes at once, at most {MOST}")));
        }
        let range = start..start + length as u64;
        let mut last = None;
        // The client repeats what it can; a body that breaks off without a version it cannot.
        for _ in 0..3 {
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                if_match: self.version.clone(),
                ..GetOptions::default()
            };
            let work = async {
                let found =
                    self.store.get_opts(&self.key, options).await.map_err(|e| (false, e))?;
                found.bytes().await.map_err(|e| (true, e))
            };
            match wait(work)? {
                Ok(bytes) if bytes.len() == length => return Ok(bytes.to_vec()),
                Ok(bytes) => {
                    let reason = format!("{} bytes came where {length} were asked", bytes.len());
                    last = Some(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                }
                Err((true, error)) => last = Some(failure(&error)),
                Err((false, error)) => return Err(failure(&error)),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
    }
}

/// The files directly below `s3://BUCKET/FOLDER/`, in the order of their names.
pub(crate) fn list(url: &str) -> Result<Vec<String>, DataError> {
    let Some(rest) = url.strip_prefix("s3://") else {
        let reason = "a web server does not list its files; spell them out with braces".into();
        return Err(DataError::Spelling { spelling: url.into(), reason });
    };
    let (store, key) = store(url)?;
    let found = wait(store.list_with_delimiter(Some(&key))).map_err(|e| refused(url, e))?;
    let found = found.map_err(|error| refused(url, failure(&error)))?;
    let bucket = rest.split('/').next().unwrap_or_default();
    let mut names: Vec<String> =
        found.objects.iter().map(|o| format!("s3://{bucket}/{}", o.location)).collect();
    names.sort();
    Ok(names)
}

fn refused(url: &str, error: io::Error) -> DataError {
    DataError::refused(Path::new(url), error.to_string())
}

/// Scheme, host and path of an URL that may be read.
pub(crate) fn parts(url: &str) -> Result<(&str, &str, &str), DataError> {
    let wrong = |reason: String| Err(DataError::Spelling { spelling: url.into(), reason });
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() || path.is_empty() {
        return wrong(format!("expected {scheme}://HOST/PATH"));
    }
    if host.contains('@') || path.contains(['?', '#']) {
        let reason =
            "an URL with a password or a query is not read: it would stand in every record";
        return wrong(reason.to_owned());
    }
    Ok((scheme, host, path))
}

/// The store of an URL, and the key of the file in it.
fn store(url: &str) -> Result<(Arc<dyn ObjectStore>, Key), DataError> {
    static STORES: OnceLock<Stores> = OnceLock::new();
    let wrong = |reason: String| DataError::Spelling { spelling: url.into(), reason };
    let (scheme, host, path) = parts(url)?;
    let key = match scheme {
        "s3" => Key::parse(path),
        _ => Key::from_url_path(path),
    };
    let key = key.map_err(|error| wrong(error.to_string()))?;
    let place = format!("{scheme}://{host}");
    let mut stores = STORES.get_or_init(Stores::default).lock();
    let stores = stores.as_mut().map_err(|_| wrong("a panic left no stores".to_owned()))?;
    if let Some(store) = stores.get(&place) {
        return Ok((store.clone(), key));
    }
    let made = make(scheme, host, &place).map_err(|error| wrong(failure(&error).to_string()))?;
    stores.insert(place, made.clone());
    Ok((made, key))
}

fn make(scheme: &str, host: &str, place: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
    let options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(patience())
        .with_read_timeout(patience())
        .with_allow_http(true);
    if scheme != "s3" {
        let builder = HttpBuilder::new().with_url(place).with_client_options(options);
        return Ok(Arc::new(builder.with_retry(retry).build()?));
    }
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(host)
        .with_client_options(options)
        .with_retry(retry);
    // Without any credentials the client would ask the network of a data centre for them, and
    // wait long where there is none.
    let known = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_METADATA_ENDPOINT"];
    let container =
        ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    if !known.iter().chain(&container).any(|name| std::env::var_os(name).is_some()) {
        builder = builder.with_skip_signature(true);
    }
    Ok(Arc::new(builder.build()?))
}

/// An error of a store in few words: the innermost reason says most.
fn failure(error: &object_store::Error) -> io::Error {
    use object_store::Error::{Generic, NotFound, PermissionDenied, Precondition, Unauthenticated};
    let reason = match error {
        NotFound { .. } => return io::Error::new(io::ErrorKind::NotFound, "is not there"),
        Precondition { .. } => "has changed since it was found".to_owned(),
        PermissionDenied { .. } | Unauthenticated { .. } => {
            "the server refuses access (credentials are taken from AWS_* variables)".to_owned()
        }
        Generic { source, .. } => {
            let mut cause: &dyn std::error::Error = source.as_ref();
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            let repeated = source.to_string().contains(" retries,");
            let often =
                if repeated { format!(" (tried {} times)", RETRIES + 1) } else { "".into() };
            let cause = cause.to_string();
            if cause.contains("timed out") {
                let seconds = patience().as_secs();
                let reason = "the server does not answer, or stalled";
                let reason =
                    format!("{reason}: nothing came for {seconds} s ({PATIENCE_SET}){often}");
                return io::Error::new(io::ErrorKind::TimedOut, reason);
            }
            format!("{}{often}", shown(&cause))
        }
        other => shown(&other.source().map_or_else(|| other.to_string(), ToString::to_string)),
    };
    io::Error::other(reason)
}

/// Waits for a client. One thread at a time drives the runtime; the others wait for theirs.
fn wait<T>(work: impl Future<Output = T>) -> io::Result<T> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    if RUNTIME.get().is_none() {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if RUNTIME.get().is_none() {
            let made = Builder::new_current_thread().enable_all().build()?;
            let _ = RUNTIME.set(made);
        }
    }
    match RUNTIME.get() {
        Some(runtime) => Ok(runtime.block_on(work)),
        None => Err(io::Error::other("no runtime")),
    }
}

/// Reads an [`Object`] from front to back, block by block.
pub(crate) struct Reader {
    object: Arc<Object>,
    position: u64,
    block: Vec<u8>,
    /// Where the block begins.
    begin: u64,
    /// Size of the next block.
    next: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.object.length;
        if self.position >= length || buffer.is_empty() {
            return Ok(0);
        }
        let end = self.begin + self.block.len() as u64;
        if !(self.begin..end).contains(&self.position) {
            // Reading on makes larger blocks, a jump begins anew.
            let goes_on = self.position == end && !self.block.is_empty();
            self.next = if goes_on { (2 * self.next).min(LARGEST) } else { SMALLEST };
            let count = self.next.min(length - self.position) as usize;
            self.block = Vec::new();
            self.block = self.object.read_at(self.position, count)?;
            self.begin = self.position;
        }
        let from = (self.position - self.begin) as usize;
        let there = self.block.get(from..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(step) => self.position.checked_add_signed(step),
            SeekFrom::End(step) => self.object.length.checked_add_signed(step),
        };
        let reason = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning");
        self.position = place.ok_or_else(reason)?;
        Ok(self.position)
    }
}
