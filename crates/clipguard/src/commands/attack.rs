//! `clipguard attack`.

mod check;

use crate::{failure::Failure, session::Session};
use burn::tensor::{Tensor, TensorData};
use clipguard_attack::{Attacked, Batch, Budget};
use clipguard_data::{Picture, file_name};
use clipguard_evaluate::{
    Check, Classification, Classifier, Interval, Reliability, Subset,
    checks::NO_BALL,
    classifier::template_set,
    records::record_file::write_atomic,
    report::{Cell, Share, Table},
    run::adversarial::{self, Origin},
};
use clipguard_model::{Checkpoint, Victim};
use std::path::PathBuf;

/// Make adversarial pictures and say how many work.
///
/// Pictures are saved in the model's input size, exactly (`adversarial.safetensors`, which
/// `clipguard evaluate --adversarial` takes) and as PNG, which rounds them; both are read back and
/// judged again. `--check` asks whether the attack was worth its number: it looks for gradients
/// that are zero, wrong or saturated, lets random points and other attacks try, and plants an
/// adversarial that the attack has to find. It takes many times as long as the attack.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard attack --attack pgd:eps=4/255,steps=40 --out runs/adversarial\n  \
    clipguard attack --model my-clip/ --data photos/ --attack fgsm:eps=2/255 --purify clipure-cos --out adv\n  \
    clipguard attack --attack pgd:eps=2/255 --check --samples 64 --out runs/checked\n\n\
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
    /// Check whether the attack is strong enough to be believed (slow).
    #[arg(long)]
    check: bool,
    /// Folder for pictures and summary.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let attack = clipguard_attack::parse(&args.attack)?;
    if args.check && matches!(Budget::of(&attack.spelling()), Budget::Patch { .. }) {
        return Err(Failure::Usage(format!("--check: {NO_BALL}")));
    }
    if args.batch == 0 {
        return Err(Failure::Usage("--batch 0: at least 1 is needed".to_owned()));
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    let source = clipguard_data::open(&args.data, &clipguard_data::Options::default())?;
    let Some(classes) = source.classes().map(<[String]>::to_vec) else {
        return Err(Failure::Refused(format!("{}: has no classes to attack", args.data)));
    };
    let device = session.device.clone();
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
    let spelling = attack.spelling();
    let saved = save(&results, &subset, args, &spelling.to_string(), &classifier, session)?;
    let budget = Budget::of(&spelling);
    let again = |pixels: &Tensor<4>| -> Result<Again, Failure> {
        let logits = classifier.logits(&victim, pixels, &subset.keys, size);
        let right = Classification::new(&logits, victim.classes(), &subset.labels)
            .map_err(|e| Failure::Failed(e.to_string()))?
            .right(&subset.labels);
        let inside = adversarial::within(&subset.pixels, pixels, budget);
        let count = |flags: &[bool]| flags.iter().filter(|flag| **flag).count();
        Ok(Again { right: count(&right), inside: count(&inside) })
    };
    let again = [again(&saved[0])?, again(&saved[1])?];
    let checks = match args.check {
        true => check::run(args, session, &classifier, &subset, size, &spelling.to_string())?,
        false => Vec::new(),
    };
    tell(args, session, &results, &again, &spelling.to_string(), &checks)
}

/// What was found when saved pictures were read back.
struct Again {
    /// Pictures that are right.
    right: usize,
    /// Pictures within budget and box.
    inside: usize,
}

/// Saves the attacked pictures, exactly and as PNG, and returns both as read back.
fn save(
    results: &[Attacked],
    subset: &Subset,
    args: &Args,
    attack: &str,
    classifier: &Classifier,
    session: &Session,
) -> Result<[Tensor<4>; 2], Failure> {
    let all = Tensor::cat(results.iter().map(|r| r.pixels.clone()).collect(), 0);
    let exact = args.out.join("adversarial.safetensors");
    let origin = Origin {
        keys: subset.keys.clone(),
        attack: attack.to_owned(),
        model: classifier.digest.clone(),
        seed: session.seed,
    };
    adversarial::save(&exact, &all, &origin)?;
    let [_, _, h, w] = all.dims();
    let levels = (all * 255.0).round();
    let values = levels.into_data().try_to_vec::<f32>().unwrap_or_default();
    let mut reread = Vec::with_capacity(values.len());
    for (planes, key) in values.chunks_exact(3 * h * w).zip(&subset.keys) {
        let plane = h * w;
        let rgb = (0..3 * plane).map(|i| planes[i % 3 * plane + i / 3] as u8).collect();
        let picture = Picture { width: w as u32, height: h as u32, rgb };
        let path = args.out.join("pictures").join(format!("{}.png", file_name(key)));
        let failed = |e: image::ImageError| Failure::Failed(format!("{}: {e}", path.display()));
        write_atomic(&path, &png(&picture).map_err(failed)?)?;
        let back = image::open(&path).map_err(failed)?.to_rgb8().into_raw();
        reread.extend((0..3 * plane).map(|i| f32::from(back[i % plane * 3 + i / plane]) / 255.0));
    }
    let device = session.device.clone();
    let shape = subset.pixels.dims();
    let png = Tensor::from_data(TensorData::new(reread, shape), &device);
    Ok([adversarial::read(&exact)?.pixels(&device), png])
}

/// A picture as a PNG file.
pub(crate) fn png(picture: &Picture) -> Result<Vec<u8>, image::ImageError> {
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
    [exact, png]: &[Again; 2],
    attack: &str,
    checks: &[Check],
) -> Result<(), Failure> {
    let all = |of: fn(&Attacked) -> &Vec<bool>| results.iter().flat_map(of).filter(|v| **v).count();
    let n: usize = results.iter().map(|r| r.success.len()).sum();
    let (clean, broken) = (all(|r| &r.correct), all(|r| &r.success));
    let backwards: usize = results.iter().map(|r| r.backwards).sum();
    let zero: f32 = results.iter().map(|r| r.zero_gradients * r.backwards as f32).sum();
    let zero = f64::from(zero) / backwards.max(1) as f64;
    let mut flags: Vec<String> =
        results.iter().flat_map(|r| &r.flags).map(ToString::to_string).collect();
    flags.sort();
    flags.dedup();
    let nearest = nearest(results);
    let summary = serde_json::json!({
        "model": args.model, "data": args.data, "attack": attack, "purify": args.purify,
        "n": n, "clean_correct": clean, "robust_correct": n - broken,
        "robust_correct_reread": exact.right, "within_budget_reread": exact.inside,
        "robust_correct_as_png": png.right, "within_budget_as_png": png.inside,
        "robust_interval": Interval::wilson(n - broken, n, 0.95),
        "median_nearest": nearest, "zero_gradients": zero, "flags": flags, "checks": checks,
        "reliability": Reliability::of(checks).words(), "seed": session.seed,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let path = args.out.join("summary.json");
    write_atomic(&path, format!("{summary:#}\n").as_bytes())?;
    if session.json {
        println!("{summary:#}");
        return Ok(());
    }
    let doubt = match Reliability::of(checks) {
        Reliability::NotReliable => " (not reliable)",
        _ => "",
    };
    let mut table = Table::new("", &["pictures", "right", "of", "within budget"]);
    for (name, right, inside) in [
        ("clean".to_owned(), clean, None),
        (format!("attacked{doubt}"), n - broken, None),
        (format!("attacked, read back{doubt}"), exact.right, Some(exact.inside)),
        (format!("attacked, as PNG{doubt}"), png.right, Some(png.inside)),
    ] {
        let share = Cell::Share(Share::counted(right, n));
        let inside = inside.map_or(Cell::Missing, |inside| Cell::Count(inside as u64));
        table.row(vec![Cell::Text(name), share, Cell::Count(n as u64), inside]);
    }
    println!("{}", table.text(100));
    if let Some(nearest) = nearest {
        println!("smallest change that errs: {nearest:.4} at half of the pictures that were right");
    }
    flags.iter().for_each(|flag| println!("note: {flag}"));
    check::tell(checks);
    println!("pictures  {}", args.out.join("pictures").display());
    println!("exact     {}", args.out.join("adversarial.safetensors").display());
    Ok(())
}

/// The median over the pictures that were right of the smallest change that errs, inside the budget
/// or not; `None` if the attack does not look for small ones, or found none for half of them.
fn nearest(results: &[Attacked]) -> Option<f32> {
    let of = |r: &Attacked| -> Vec<f32> {
        let right = r.correct.iter().zip(&r.nearest).filter(|(correct, _)| **correct);
        right.map(|(_, size)| size.unwrap_or(f32::INFINITY)).collect()
    };
    let mut sizes: Vec<f32> = results.iter().flat_map(of).collect();
    sizes.sort_by(f32::total_cmp);
    sizes.get(sizes.len() / 2).copied().filter(|size| size.is_finite())
}
