//! `clipguard convert`.

use crate::{
    failure::Failure,
    output::{print, print_json},
    session::Session,
};
use clipguard_model::{Checkpoint, Precision, positions::Way};
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
    clipguard convert vit-b-32-hf --precision f16 --out small             half the size\n  \
    clipguard convert vit-b-32 --image-size 288 --out vit-b-32-288        for larger pictures")]
pub(crate) struct Args {
    /// The model, spelled as everywhere.
    model: String,
    /// The layout to write.
    #[arg(long, value_enum, default_value = "open-clip")]
    to: Layout,
    /// Precision of the weights.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Bits,
    /// Bring a vision transformer to pictures of this side: its position table is resized.
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// Bring the text tower to this number of tokens: its position table is resized.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// How a table of picture positions is resized.
    #[arg(long, value_enum, default_value = "open-clip", requires = "image_size")]
    positions: Positions,
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

/// Ways to resize a table of picture positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Positions {
    /// Bicubic with the filter that pictures are resized with.
    OpenClip,
    /// Bicubic with four taps, as `interpolate_pos_encoding` of transformers.
    HuggingFace,
}

/// Precisions of weights in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Bits {
    F32,
    F16,
    Bf16,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let taken = [clipguard_model::checkpoint::CONFIG, clipguard_model::hugging_face::CONFIG];
    if let Some(name) = taken.iter().find(|name| args.out.join(name).exists()) {
        let out = args.out.display();
        return Err(Failure::Usage(format!("{out} holds a model already (`{name}`); use another")));
    }
    let mut checkpoint = Checkpoint::open(&args.model)?;
    let from = checkpoint.digest.clone();
    if let Some(side) = args.image_size {
        let way = match args.positions {
            Positions::OpenClip => Way::OpenClip,
            Positions::HuggingFace => Way::HuggingFace,
        };
        checkpoint = checkpoint.for_image_size(side, way)?;
    }
    if let Some(tokens) = args.context {
        checkpoint = checkpoint.for_context(tokens)?;
    }
    let precision = match args.precision {
        Bits::F32 => Precision::F32,
        Bits::F16 => Precision::F16,
        Bits::Bf16 => Precision::Bf16,
    };
    match args.to {
        Layout::OpenClip => checkpoint.save(&args.out, precision)?,
        Layout::HuggingFace => checkpoint.save_hugging_face(&args.out, precision)?,
    }
    if session.json {
        return print_json(&json!({
            "model": args.out,
            "from": args.model,
            "sha256": from,
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
