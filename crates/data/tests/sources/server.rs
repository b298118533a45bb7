//! A small web server and S3 for tests: files in memory, GET with ranges, HEAD, a list of a folder
//! (ListObjectsV2), and failures on demand.
#![allow(dead_code, reason = "several test programs use it, each a part")]

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

#[derive(Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Headers of every answer about a file.
    headers: Mutex<Vec<(String, String)>>,
    /// Method, path and authorization of all requests so far.
    requests: Mutex<Vec<String>>,
    /// Requests that are still to be answered by 500.
    failures: AtomicUsize,
    /// Bodies that are still to break off in the middle.
    breaks: AtomicUsize,
    /// Bodies that still begin and then say nothing more.
    stalls: AtomicUsize,
}

/// A server that lives as long as the test program.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = served.clone();
                std::thread::spawn(move || answer(&shared, stream));
            }
        });
        Self { address, shared }
    }

    /// Puts a file at a path such as `/folder/a.tar`.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        self.shared.files.lock().unwrap().insert(path.to_owned(), bytes.to_vec());
    }

    pub(crate) fn remove(&self, path: &str) {
        self.shared.files.lock().unwrap().remove(path);
    }

    pub(crate) fn header(&self, name: &str, value: &str) {
        self.shared.headers.lock().unwrap().push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers the next `count` requests by 500.
    pub(crate) fn fail(&self, count: usize) {
        self.shared.failures.store(count, Ordering::SeqCst);
    }

    /// Breaks the next `count` bodies off in the middle.
    pub(crate) fn break_off(&self, count: usize) {
        self.shared.breaks.store(count, Ordering::SeqCst);
    }

    /// Lets the next `count` bodies begin and then say nothing for a minute.
    pub(crate) fn stall(&self, count: usize) {
        self.shared.stalls.store(count, Ordering::SeqCst);
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

/// What a client wants.
#[derive(Default)]
struct Request {
    method: String,
    path: String,
    query: String,
    range: Option<String>,
    if_match: Option<String>,
    authorization: String,
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request =
        Request { method, path: path.to_owned(), query: query.to_owned(), ..Request::default() };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(request);
        }
        let (name, value) = line.split_once(':')?;
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value),
            "if-match" => request.if_match = Some(value),
            "authorization" => request.authorization = value,
            _ => {}
        }
    }
    None
}

fn take(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn answer(shared: &Shared, mut stream: TcpStream) -> Option<()> {
    let request = read_request(&stream)?;
    let Request { method, path, query, authorization, .. } = &request;
    shared.requests.lock().unwrap().push(format!("{method} {path}?{query} {authorization}"));
    let mut send = |status: &str, headers: &str, body: &[u8], length: usize| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()
    };
    if take(&shared.failures) {
        return send("500 Internal Server Error", "", b"out of order", 12);
    }
    if query.contains("list-type=2") {
        let body = list(&shared.files.lock().unwrap(), path, query);
        return send("200 OK", "Content-Type: application/xml\r\n", body.as_bytes(), body.len());
    }
    let Some(bytes) = shared.files.lock().unwrap().get(path).cloned() else {
        return send("404 Not Found", "", b"", 0);
    };
    let mut hash = DefaultHasher::new();
    bytes.hash(&mut hash);
    let tag = format!("\"{:016x}\"", hash.finish());
    if request.if_match.as_ref().is_some_and(|wanted| *wanted != tag) {
        return send("412 Precondition Failed", "", b"", 0);
    }
    let mut headers = format!("ETag: {tag}\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n");
    for (name, value) in shared.headers.lock().unwrap().iter() {
        headers += &format!("{name}: {value}\r\n");
    }
    let (mut status, mut part) = ("200 OK", &bytes[..]);
    if let Some(range) = &request.range {
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        let start: usize = start.parse().ok()?;
        let end = end.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
        if start >= end {
            return send("416 Range Not Satisfiable", "", b"", 0);
        }
        status = "206 Partial Content";
        headers += &format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
        part = &bytes[start..end];
    }
    match method.as_str() {
        "HEAD" => send(status, &headers, b"", part.len()),
        _ if take(&shared.stalls) => {
            send(status, &headers, &part[..part.len() / 2], part.len());
            std::thread::sleep(std::time::Duration::from_secs(60));
            None
        }
        _ if take(&shared.breaks) => send(status, &headers, &part[..part.len() / 2], part.len()),
        _ => send(status, &headers, part, part.len()),
    }
}

/// The files of a bucket below a prefix, as S3 lists them.
fn list(files: &BTreeMap<String, Vec<u8>>, bucket: &str, query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or("");
    let prefix = prefix.replace("%2F", "/");
    let bucket = bucket.trim_matches('/');
    let mut body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>{bucket}</Name>\
         <Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>"
    );
    for (path, bytes) in files {
        let Some(key) = path.strip_prefix(&format!("/{bucket}/")) else { continue };
        if key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')) {
            body += &format!(
                "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
                 <ETag>\"x\"</ETag><Size>{}</Size></Contents>",
                bytes.len()
            );
        }
    }
    body + "</ListBucketResult>"
}
