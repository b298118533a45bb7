//! What all commands share: where to compute, how to speak, and whether to stop.

use burn::tensor::Device;
use clipguard_model::{Checkpoint, ModelError, positions::Way};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by the first Ctrl-C; commands stop at the next safe place. A second one ends the process.
static STOP: AtomicBool = AtomicBool::new(false);

/// The global options and what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Where tensors live.
    pub(crate) device: Device,
    /// The device as the user spelled it, if so.
    pub(crate) place: Option<String>,
    /// Seed of every random stream.
    pub(crate) seed: u64,
    /// Threads; 0 means all cores.
    pub(crate) threads: usize,
    /// One JSON document on stdout instead of a table.
    pub(crate) json: bool,
    /// Nothing on stderr but errors.
    pub(crate) quiet: bool,
    /// More on stderr.
    pub(crate) verbose: bool,
}

impl Session {
    /// Begins to listen for Ctrl-C.
    pub(crate) fn listen(&self) {
        // Without a handler Ctrl-C still ends the process, only less gently.
        let _ = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            eprintln!("\nstopping at the next safe place (Ctrl-C again: at once)");
        });
    }

    /// Whether somebody asked to stop.
    pub(crate) fn stopped(&self) -> bool {
        STOP.load(Ordering::SeqCst)
    }

    /// The flag behind [`Session::stopped`], for loops that take one.
    pub(crate) fn stop_flag(&self) -> &'static AtomicBool {
        &STOP
    }

    /// A line on stderr, unless `-q`.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", text.as_ref());
        }
    }

    /// A progress bar on stderr with the time left; silent with `-q` or without a terminal.
    pub(crate) fn bar(&self, total: u64, what: &'static str) -> ProgressBar {
        let target =
            if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = "{prefix} {bar:30} {human_pos}/{human_len} {per_sec} {eta} left {msg}";
        let style =
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(total), target).with_style(style).with_prefix(what)
    }
}

/// The model of a spelling, for pictures of another side where one is given.
pub(crate) fn model(spelling: &str, side: Option<usize>) -> Result<Checkpoint, ModelError> {
    let checkpoint = Checkpoint::open(spelling)?;
    match side {
        Some(side) => checkpoint.for_image_size(side, Way::OpenClip),
        None => Ok(checkpoint),
    }
}
