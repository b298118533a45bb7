//! How fast a data source streams, and with how much memory: `stream SPELLING [THREADS]` decodes every
//! picture and brings it to 64 pixels, as training does, and tells the memory at every quarter.
//!
//! `bench/stream.sh` runs it over 100,000 pairs in every format, beside the loaders that people use.

use clipguard_data::{Limits, Loader, LoaderOptions, Options, Resize, open};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let spelling = args.first().ok_or("expected the spelling of a data source")?;
    let threads = args.get(1).map_or(Ok(0), |text| text.parse())?;
    let source = open(spelling, &Options::default())?;
    let (limits, resize) = (Limits::default(), Resize::new(64));
    let options = LoaderOptions { threads, ..LoaderOptions::default() };
    let start = Instant::now();
    let loader = Loader::new(source.as_ref(), options, move |raw| {
        let sample = raw.decode(&limits)?;
        let words = sample.caption.as_ref().map_or(0, |caption| caption.len());
        Ok((resize.picture(&sample.picture), words))
    })?;
    let (mut pictures, mut letters, mut said) = (0u64, 0, Vec::new());
    for item in loader {
        let (picture, words) = item?;
        assert_eq!(picture.rgb.len(), 64 * 64 * 3);
        (pictures, letters) = (pictures + 1, letters + words);
        if pictures.is_multiple_of(25_000) {
            said.push(resident().map_or("?".to_owned(), |mib| format!("{mib}")));
        }
    }
    let rate = pictures as f64 / start.elapsed().as_secs_f64();
    println!(
        "{pictures} pairs, {letters} letters of captions, {rate:.0} pairs/s, MiB every 25,000: {}",
        said.join(" ")
    );
    Ok(())
}

/// Memory of this process in MiB, where the system tells it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}
