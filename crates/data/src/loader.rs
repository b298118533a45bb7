//! Samples prepared ahead of their consumer, on several threads, in the source's order.
//!
//! One thread reads the source, several run the caller's closure (decode, resize, to numbers),
//! and the consumer iterates. Every sample travels with a one-place channel for its result, and
//! the consumer waits on those channels in the order of the source: which thread is faster never
//! shows. All queues are bounded, so a slow consumer stops the reader instead of filling memory.

use crate::{DataError, RawSample, Source};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

/// How many skipped samples are remembered by name.
const NAMED: usize = 20;

/// How a [`Loader`] works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Threads that run the closure; 0 means as many as the machine has cores.
    pub threads: usize,
    /// Most samples on their way at any time; 0 means four a thread.
    pub queue: usize,
    /// Whether the first bad sample ends the iteration with its error.
    pub strict: bool,
    /// Position in the source to start at.
    pub start: u64,
    /// Only samples whose index is `i` modulo `n`, given as `(i, n)`.
    pub shard: Option<(u64, u64)>,
}

/// Bad samples that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// Key and reason of the first of them.
    pub first: Vec<(String, String)>,
}

/// Prepared samples in the order of their source.
///
/// Bad samples are left out and counted, see [`Self::skipped`]; an `Err` ends the iteration.
pub struct Loader<T> {
    results: Option<Receiver<Receiver<Result<T, DataError>>>>,
    threads: Vec<JoinHandle<()>>,
    strict: bool,
    skipped: Skipped,
    on_skip: Option<OnSkip>,
}

type OnSkip = Box<dyn FnMut(&DataError) + Send>;

/// A sample, and where its result goes.
type Job<T> = (RawSample, SyncSender<Result<T, DataError>>);

impl<T: Send + 'static> Loader<T> {
    /// Loads from a source, beginning at [`LoaderOptions::start`].
    pub fn new<F>(
        source: &dyn Source,
        options: LoaderOptions,
        prepare: F,
    ) -> Result<Self, DataError>
    where
        F: Fn(RawSample) -> Result<T, DataError> + Send + Sync + 'static,
    {
        Self::from_samples(source.open(options.start)?, options, prepare)
    }

    /// Loads from any iterator of samples; [`LoaderOptions::start`] is not looked at.
    pub fn from_samples<I, F>(
        samples: I,
        options: LoaderOptions,
        prepare: F,
    ) -> Result<Self, DataError>
    where
        I: Iterator<Item = Result<RawSample, DataError>> + Send + 'static,
        F: Fn(RawSample) -> Result<T, DataError> + Send + Sync + 'static,
    {
        if let Some((i, n)) = options.shard
            && i >= n
        {
            let spelling = format!("{i}/{n}");
            let reason = "is no shard, expected I/N with I below N".into();
            return Err(DataError::Spelling { spelling, reason });
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if options.threads == 0 { cores() } else { options.threads };
        let queue = if options.queue == 0 { 4 * count } else { options.queue };
        let (results_in, results) = sync_channel(queue);
        let (jobs_in, jobs) = sync_channel::<Job<T>>(queue);
        let jobs = Arc::new(Mutex::new(jobs));
        let prepare = Arc::new(prepare);

        // Assembled from the start, so that a thread that cannot be had stops the others.
        let mut loader = Self {
            results: Some(results),
            threads: Vec::with_capacity(count + 1),
            strict: options.strict,
            skipped: Skipped::default(),
            on_skip: None,
        };
        for _ in 0..count {
            let (jobs, prepare) = (jobs.clone(), prepare.clone());
            loader.start(move || work(&jobs, &*prepare))?;
        }
        loader.start(move || feed(samples, options.shard, &jobs_in, &results_in))?;
        Ok(loader)
    }

    fn start(&mut self, body: impl FnOnce() + Send + 'static) -> Result<(), DataError> {
        let thread = Builder::new().name("loader".into()).spawn(body);
        let source = |source| DataError::Io { path: "a new thread".into(), source };
        self.threads.push(thread.map_err(source)?);
        Ok(())
    }
}

impl<T> Loader<T> {
    /// Calls `report` for every bad sample that is left out from now on.
    pub fn on_skip(mut self, report: impl FnMut(&DataError) + Send + 'static) -> Self {
        self.on_skip = Some(Box::new(report));
        self
    }

    /// What has been left out so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Lets the threads run out: without a receiver the reader stops, and without it the others.
    fn stop(&mut self) {
        self.results = None;
        for thread in self.threads.drain(..) {
            // All panics were caught; what remains to be known about a thread is that it ended.
            let _ = thread.join();
        }
    }
}

impl<T> Iterator for Loader<T> {
    type Item = Result<T, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let result = self.results.as_ref()?.recv().ok().map(|result| {
                result.recv().unwrap_or_else(|_| {
                    let (key, message) = ("the loader".into(), "a result was lost".into());
                    Err(DataError::Panic { key, message })
                })
            });
            match result {
                None => {
                    self.stop();
                    return None;
                }
                Some(Err(error)) if self.strict || error.is_fatal() => {
                    self.stop();
                    return Some(Err(error));
                }
                Some(Err(error)) => {
                    self.skipped.count += 1;
                    if self.skipped.first.len() < NAMED {
                        self.skipped.first.push((error.subject(), error.to_string()));
                    }
                    if let Some(report) = &mut self.on_skip {
                        report(&error);
                    }
                }
                Some(Ok(value)) => return Some(Ok(value)),
            }
        }
    }
}

impl<T> Drop for Loader<T> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads the source until it ends or nobody listens any more.
fn feed<T>(
    mut samples: impl Iterator<Item = Result<RawSample, DataError>>,
    shard: Option<(u64, u64)>,
    jobs: &SyncSender<Job<T>>,
    results: &SyncSender<Receiver<Result<T, DataError>>>,
) {
    loop {
        let next = catch_unwind(AssertUnwindSafe(|| samples.next())).unwrap_or_else(|panic| {
            Some(Err(DataError::Panic { key: "reading".into(), message: message(&*panic) }))
        });
        let (result_in, result) = sync_channel(1);
        let (job, last) = match next {
            None => return,
            Some(Ok(sample)) => match shard {
                Some((i, n)) if sample.index % n != i => continue,
                _ => (Some(sample), false),
            },
            Some(Err(error)) => {
                // What is wrong with the source as a whole is told once, by the first shard.
                let fatal = error.is_fatal();
                if !fatal && shard.is_some_and(|(i, _)| i != 0) {
                    continue;
                }
                // There is room for one result, and this is the only one.
                let _ = result_in.send(Err(error));
                (None, fatal)
            }
        };
        if results.send(result).is_err() {
            return;
        }
        if let Some(sample) = job
            && jobs.send((sample, result_in)).is_err()
        {
            return;
        }
        if last {
            return;
        }
    }
}

/// Prepares samples until there are no more.
fn work<T>(
    jobs: &Mutex<Receiver<Job<T>>>,
    prepare: &(impl Fn(RawSample) -> Result<T, DataError> + Sync),
) {
    loop {
        // Held while waiting: the others wait for the lock instead of for the channel. Nothing
        // that can panic runs under it, so a poisoned lock means nothing.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((sample, result)) = job else { return };
        let key = sample.key.clone();
        let done = catch_unwind(AssertUnwindSafe(|| prepare(sample)))
            .unwrap_or_else(|panic| Err(DataError::Panic { key, message: message(&*panic) }));
        // The consumer may have gone.
        let _ = result.send(done);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Picture, PictureError, RawPicture};
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    fn sample(index: u64) -> RawSample {
        let picture = RawPicture::Pixels(Picture::filled(1, 1, [0; 3]));
        RawSample { index, key: format!("k{index}"), picture, caption: None, label: None }
    }

    fn samples(n: u64) -> impl Iterator<Item = Result<RawSample, DataError>> + Send {
        (0..n).map(|index| Ok(sample(index)))
    }

    fn bad(key: &str) -> DataError {
        DataError::Picture { key: key.into(), source: PictureError::Empty }
    }

    fn options(threads: usize) -> LoaderOptions {
        LoaderOptions { threads, queue: 5, ..LoaderOptions::default() }
    }

    #[test]
    fn results_come_in_order_whichever_thread_is_slow() {
        let loader = Loader::from_samples(samples(60), options(4), |sample| {
            std::thread::sleep(Duration::from_millis((sample.index * 7) % 5));
            Ok(sample.index)
        });
        let found: Vec<u64> = loader.unwrap().map(Result::unwrap).collect();
        assert_eq!(found, (0..60).collect::<Vec<_>>());
    }

    #[test]
    fn bad_samples_are_skipped_counted_and_named() {
        let source = samples(50).chain([Err(bad("from the source"))]);
        let prepare = |sample: RawSample| {
            if sample.index % 2 == 1 { Err(bad(&sample.key)) } else { Ok(sample.index) }
        };
        let told = Arc::new(AtomicU64::new(0));
        let counter = told.clone();
        let mut loader =
            Loader::from_samples(source, options(3), prepare).unwrap().on_skip(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            });
        assert_eq!(loader.by_ref().map(Result::unwrap).count(), 25);
        assert_eq!((loader.skipped().count, told.load(Ordering::Relaxed)), (26, 26));
        assert_eq!(loader.skipped().first.len(), NAMED);
        assert_eq!(loader.skipped().first[0].0, "k1");
        assert!(loader.skipped().first[0].1.contains("empty"));
    }

    #[test]
    fn strict_makes_the_first_bad_sample_fatal() {
        let strict = LoaderOptions { strict: true, ..options(3) };
        let prepare = |sample: RawSample| {
            if sample.index >= 4 { Err(bad(&sample.key)) } else { Ok(sample.index) }
        };
        let mut loader = Loader::from_samples(samples(100), strict, prepare).unwrap();
        assert_eq!(loader.by_ref().take(4).map(Result::unwrap).count(), 4);
        assert!(loader.next().unwrap().unwrap_err().to_string().contains("k4"));
        assert!(loader.next().is_none());
    }

    #[test]
    fn a_panic_becomes_an_error_and_ends_the_iteration() {
        let prepare = |sample: RawSample| {
            assert!(sample.index != 3, "three is too many");
            Ok(sample.index)
        };
        let found: Vec<_> =
            Loader::from_samples(samples(9), options(2), prepare).unwrap().collect();
        assert_eq!(found.len(), 4);
        let message = found[3].as_ref().unwrap_err().to_string();
        assert!(message.contains("k3") && message.contains("three is too many"), "{message}");

        let broken = (0..9).map(|i| if i == 2 { panic!("no more") } else { Ok(sample(i)) });
        let found: Vec<_> = Loader::from_samples(broken, options(2), Ok).unwrap().collect();
        assert_eq!(found.len(), 3);
        assert!(found[2].as_ref().unwrap_err().to_string().contains("no more"));
    }

    #[test]
    fn shards_are_disjoint_and_together_everything() {
        let mut all = Vec::new();
        for i in 0..3 {
            let options = LoaderOptions { shard: Some((i, 3)), ..options(2) };
            let source = samples(20).chain([Err(bad("x"))]);
            let mut loader = Loader::from_samples(source, options, |s| Ok(s.index)).unwrap();
            all.extend(loader.by_ref().map(Result::unwrap));
            assert_eq!(loader.skipped().count, u64::from(i == 0));
        }
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        let none = LoaderOptions { shard: Some((3, 3)), ..options(2) };
        assert!(Loader::from_samples(samples(1), none, Ok).is_err());
    }

    #[test]
    fn reading_ahead_is_bounded_and_ends_with_the_loader() {
        let read = Arc::new(AtomicU64::new(0));
        let counter = read.clone();
        let endless = (0..).map(move |index| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(sample(index))
        });
        let mut loader = Loader::from_samples(endless, options(2), |s| Ok(s.index)).unwrap();
        assert_eq!(loader.next().unwrap().unwrap(), 0);
        std::thread::sleep(Duration::from_millis(50));
        assert!(read.load(Ordering::SeqCst) <= 10, "{}", read.load(Ordering::SeqCst));
        // Returns only when all threads have ended, although the source never does.
        drop(loader);
        let after = read.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(read.load(Ordering::SeqCst), after);
    }
}
