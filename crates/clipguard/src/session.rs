//! What all commands share: where to compute, how to speak, and whether to stop.

use crate::failure::Failure;
use burn::tensor::Device;
use clipguard_model::{Arithmetic, Checkpoint, positions::Way};
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

/// Which model a command computes with, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// `embedded`, a folder of open_clip or Hugging Face, ARCH@FILE, or hf:ORG/NAME.
    #[arg(long, default_value = "embedded")]
    pub(crate) model: String,
    /// Side of the pictures in pixels, where it is not the model's (vision transformers).
    #[arg(long, value_name = "PIXELS")]
    pub(crate) image_size: Option<usize>,
    /// Precision of the model's products. `bf16` is for processors that multiply it (AVX-512 BF16), on others
    /// about as fast as `f32`; results differ in the third digit.
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) precision: Multiply,
}

/// See [`Arithmetic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Multiply {
    F32,
    Bf16,
}

impl Multiply {
    /// Its spelling.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl ModelArgs {
    /// Opens the model and says what should be known about it.
    pub(crate) fn open(&self, session: &Session) -> Result<Checkpoint, Failure> {
        if self.precision == Multiply::Bf16 && session.device != Device::flex() {
            return Err(Failure::Usage(
                "--precision bf16 is for the processor; leave `--device` or `--precision` out"
                    .to_owned(),
            ));
        }
        let mut checkpoint = Checkpoint::open(&self.model)?;
        if let Some(side) = self.image_size {
            checkpoint = checkpoint.for_image_size(side, Way::OpenClip)?;
        }
        if self.precision == Multiply::Bf16 {
            checkpoint.arithmetic = Arithmetic::Bf16;
        }
        checkpoint.warnings.iter().for_each(|warning| session.say(format!("warning: {warning}")));
        Ok(checkpoint)
    }
}
