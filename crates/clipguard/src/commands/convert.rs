//! `clipguard convert`.

use crate::{
    failure::Failure,
    output::{print, print_json},
    session::Session,
};
use clipguard_model::{Checkpoint, Precision};
use serde_json::json;
use std::path::PathBuf;

/// Write a model in the layout another program reads.
///
/// Whatever the model comes in (a folder of open_clip or Hugging Face, a torch file, a TorchScript
/// archive), it leaves as a folder with safetensors weights. Nothing in the input is executed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard convert ViT-B-32-quickgelu@model.pt --out vit-b-32          for open_clip\n  \
    clipguard convert ViT-B-32.pt --to hugging-face --out vit-b-32-hf     for transformers\n  \
    clipguard convert vit-b-32-hf --precision f16 --out small             half the size")]
pub(crate) struct Args {
    /// The model, spelled as everywhere.
    model: String,
    /// The layout to write.
    #[arg(long, value_enum, default_value = "open-clip")]
    to: Layout,
    /// Precision of the weights.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Bits,
    /// Folder to write; must not hold a model yet.
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Layouts of model folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Layout {
    /// `open_clip_config.json` and `open_clip_model.safetensors`.
    OpenClip,
    /// `config.json`, `model.safetensors` and `preprocessor_config.json`.
    HuggingFace,
}

/// Precisions of weights in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Bits {
    F32,
    F16,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let taken = [clipguard_model::checkpoint::CONFIG, clipguard_model::hugging_face::CONFIG];
    if let Some(name) = taken.iter().find(|name| args.out.join(name).exists()) {
        let out = args.out.display();
        return Err(Failure::Usage(format!("{out} holds a model already (`{name}`); use another")));
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    let precision = match args.precision {
        Bits::F32 => Precision::F32,
        Bits::F16 => Precision::F16,
    };
    match args.to {
        Layout::OpenClip => checkpoint.save(&args.out, precision)?,
        Layout::HuggingFace => checkpoint.save_hugging_face(&args.out, precision)?,
    }
    if session.json {
        return print_json(&json!({
            "model": args.out,
            "from": args.model,
            "sha256": checkpoint.digest,
            "warnings": checkpoint.warnings,
        }));
    }
    let warnings: String = checkpoint
        .warnings
        .iter()
        .map(|w| format!("warning  {}\n", clipguard_data::shown(w)))
        .collect();
    print(&format!("{warnings}model    {}\n", args.out.display()))
}
