//! `clipguard attack`.

use crate::{failure::Failure, session::Session};
use burn::tensor::Tensor;
use clipguard_attack::{Attacked, Batch};
use clipguard_data::{Picture, file_name};
use clipguard_evaluate::{
    Classification, Classifier, Interval, Subset,
    classifier::template_set,
    record_file::write_atomic,
    report::{Cell, Share, Table},
};
use clipguard_model::{Checkpoint, Victim};
use std::path::{Path, PathBuf};

/// Make adversarial pictures and say how many work.
///
/// Pictures are saved as PNG in the model's input size; success is counted twice, on the numbers
/// the attack found and on the saved pictures read back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard attack --attack pgd:eps=4/255,steps=40 --out runs/adversarial\n  \
    clipguard attack --model my-clip/ --data photos/ --attack fgsm:eps=2/255 --purify clipure-cos --out adv\n\n\
    `clipguard methods pgd` lists the parameters of an attack.")]
pub(crate) struct Args {
    /// The model under attack.
    #[arg(long, default_value = "embedded")]
    model: String,
    /// Labelled pictures (class folders, shards with labels, `cifar10:DIR`, `scenes:...`).
    #[arg(long, default_value = "scenes:840:part=instyle")]
    data: String,
    /// The attack.
    #[arg(long, default_value = "pgd:eps=1/255,steps=20")]
    attack: String,
    /// A purifier in front of the head; the attack knows it.
    #[arg(long)]
    purify: Vec<String>,
    /// Template set (name or file).
    #[arg(long, default_value = "scenes")]
    templates: String,
    /// Pictures to attack, chosen by the hash of their keys; 0 means all.
    #[arg(long, default_value_t = 100)]
    samples: usize,
    /// Pictures at once.
    #[arg(long, default_value_t = 50)]
    batch: usize,
    /// Folder for pictures and summary.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let attack = clipguard_attack::parse(&args.attack)?;
    if args.batch == 0 {
        return Err(Failure::Usage("--batch 0: at least 1 is needed".to_owned()));
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    let source = clipguard_data::open(&args.data, &clipguard_data::Options::default())?;
    let Some(classes) = source.classes().map(<[String]>::to_vec) else {
        return Err(Failure::Refused(format!("{}: has no classes to attack", args.data)));
    };
    let device = session.device();
    let templates = template_set(&args.templates)?;
    let classifier = Classifier::new(&checkpoint, &classes, &templates, &device)?;
    let victim = classifier.defended(&args.purify, None)?;
    let (n, threads) = (args.samples, session.threads);
    let subset = Subset::of(source.as_ref(), n, &checkpoint.preprocess, &device, threads)?;
    let pictures = args.out.join("pictures");
    std::fs::create_dir_all(&pictures).map_err(|e| Failure::writing(&pictures, &e))?;
    let size = victim.limit().map_or(args.batch, |limit| args.batch.min(limit.rows));
    let bar = session.bar(subset.len() as u64, "attacking");
    let mut results = Vec::new();
    for start in (0..subset.len()).step_by(size) {
        if session.stopped() {
            return Err(Failure::Interrupted("stopped; run the same command again".to_owned()));
        }
        let end = (start + size).min(subset.len());
        let batch = Batch {
            pixels: subset.part(start..end),
            labels: &subset.labels[start..end],
            keys: &subset.keys[start..end],
        };
        results.push(attack.run(&victim, &batch, session.seed));
        bar.set_position(end as u64);
    }
    bar.finish_and_clear();
    let saved = save(&results, &subset, &pictures)?;
    let logits = classifier.logits(&victim, &saved, &subset.keys, size);
    let reread = Classification::new(&logits, victim.classes(), &subset.labels)
        .map_err(|e| Failure::Failed(e.to_string()))?
        .right(&subset.labels);
    tell(args, session, &results, &reread, &attack.spelling().to_string())
}

/// Saves the attacked pictures as PNG and returns them as read back from 8 bits.
fn save(results: &[Attacked], subset: &Subset, folder: &Path) -> Result<Tensor<4>, Failure> {
    let all = Tensor::cat(results.iter().map(|r| r.pixels.clone()).collect(), 0);
    let [_, _, h, w] = all.dims();
    let levels = (all * 255.0).round();
    let values = levels.clone().into_data().try_to_vec::<f32>().unwrap_or_default();
    for (planes, key) in values.chunks_exact(3 * h * w).zip(&subset.keys) {
        let plane = h * w;
        let rgb = (0..3 * plane).map(|i| planes[i % 3 * plane + i / 3] as u8).collect();
        let picture = Picture { width: w as u32, height: h as u32, rgb };
        let path = folder.join(format!("{}.png", file_name(key)));
        let bytes = png(&picture).map_err(|e| Failure::Failed(format!("{}: {e}", path.display())))?;
        write_atomic(&path, &bytes)?;
    }
    Ok(levels / 255.0)
}

fn png(picture: &Picture) -> Result<Vec<u8>, image::ImageError> {
    use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(
        &picture.rgb,
        picture.width,
        picture.height,
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

fn tell(
    args: &Args,
    session: &Session,
    results: &[Attacked],
    reread: &[bool],
    attack: &str,
) -> Result<(), Failure> {
    let all = |of: fn(&Attacked) -> &Vec<bool>| results.iter().flat_map(of).filter(|v| **v).count();
    let n = reread.len();
    let (clean, broken) = (all(|r| &r.correct), all(|r| &r.success));
    let saved = reread.iter().filter(|right| **right).count();
    let backwards: usize = results.iter().map(|r| r.backwards).sum();
    let zero: f32 = results.iter().map(|r| r.zero_gradients * r.backwards as f32).sum();
    let zero = f64::from(zero) / backwards.max(1) as f64;
    let mut flags: Vec<String> =
        results.iter().flat_map(|r| &r.flags).map(ToString::to_string).collect();
    flags.sort();
    flags.dedup();
    let summary = serde_json::json!({
        "model": args.model, "data": args.data, "attack": attack, "purify": args.purify,
        "n": n, "clean_correct": clean, "robust_correct": n - broken,
        "robust_correct_as_png": saved,
        "robust_interval": Interval::wilson(n - broken, n, 0.95),
        "zero_gradients": zero, "flags": flags, "seed": session.seed,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let path = args.out.join("summary.json");
    write_atomic(&path, format!("{summary:#}\n").as_bytes())?;
    if session.json {
        println!("{summary:#}");
        return Ok(());
    }
    let mut table = Table::new("", &["pictures", "right", "of"]);
    for (name, right) in
        [("clean", clean), ("attacked", n - broken), ("attacked, saved as PNG", saved)]
    {
        let share = Cell::Share(Share::counted(right, n));
        table.row(vec![Cell::Text(name.to_owned()), share, Cell::Count(n as u64)]);
    }
    println!("{}", table.text(100));
    flags.iter().for_each(|flag| println!("note: {flag}"));
    println!("pictures  {}", args.out.join("pictures").display());
    Ok(())
}
