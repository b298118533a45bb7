//! Packs the model of a training run as the embedded one: half precision, gzip, and rows of the
//! token table that no caption ever touched set to zero (they are noise, and noise does not pack).
//!
//! `cargo run --release --example pack_model -- runs/embedded assets/model`

use clipguard::model::{Container, Precision, Weights, weights};
use flate2::{Compression, write::GzEncoder};
use std::{error::Error, fs, io::Write, path::PathBuf};

const TOKENS: &str = "token_embedding.weight";

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let [run, target] = &paths[..] else { return Err("usage: pack_model RUN TARGET".into()) };
    let all = Container::open(&run.join("trainer.safetensors"))?.read()?;
    let mut model: Weights = all
        .iter()
        .filter_map(|(name, array)| Some((name.strip_prefix("weight.")?.to_owned(), array.clone())))
        .collect();
    let seen = &all.get(&format!("second.{TOKENS}")).ok_or("no second moments")?.data;
    let table = model.get_mut(TOKENS).ok_or("no token table")?;
    let width = table.shape[1];
    let mut unseen = 0;
    for (row, moments) in table.data.chunks_exact_mut(width).zip(seen.chunks_exact(width)) {
        if moments.iter().all(|m| *m == 0.0) {
            row.fill(0.0);
            unseen += 1;
        }
    }
    let bytes = weights::to_safetensors(&model, Precision::F16, Some(("format", "pt")))?;
    fs::create_dir_all(target)?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bytes)?;
    let packed = packed.finish()?;
    fs::write(target.join("open_clip_model.safetensors.gz"), &packed)?;
    fs::copy(run.join("model.json"), target.join("open_clip_config.json"))?;
    println!("{unseen} token rows never seen; {} bytes packed to {}", bytes.len(), packed.len());
    Ok(())
}
