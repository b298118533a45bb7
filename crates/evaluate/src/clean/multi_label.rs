//! Zero-shot classification of pictures that show several things: mean average precision.

use crate::{
    Classifier, EvaluateError, Plan, Record, classifier::template_set, clean::captions,
    clean::metrics::mean_average_precision, run::runner::listed_classes,
};
use burn::tensor::{Device, Tensor};
use clipguard_data::{Limits, Loader, LoaderOptions, Options};
use clipguard_model::{Checkpoint, normalise};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Largest list of labels that is read, in bytes.
const MAX_LIST: u64 = 1 << 30;

/// Pictures with any number of classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiLabel {
    /// The pictures.
    pub data: String,
    /// A file with a line a picture: its key, a tab, and class names with `;` between (none for a
    /// picture that shows none of them).
    pub labels: String,
}

impl MultiLabel {
    /// Says which value makes no sense and what would be right.
    pub fn check(&self) -> Result<(), String> {
        match self.data.is_empty() || self.labels.is_empty() {
            true => Err("multi-label: `data` and `labels` are needed".to_owned()),
            false => Ok(()),
        }
    }
}

/// Class names of every picture, by key.
type Lists = BTreeMap<String, BTreeSet<String>>;

fn read(path: &Path) -> Result<Lists, EvaluateError> {
    let refuse = |reason: String| EvaluateError::File { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|e| refuse(e.to_string()))?.len();
    if size > MAX_LIST {
        return Err(refuse(format!("{size} bytes exceed the limit of {MAX_LIST}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
    let mut lists = Lists::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let at = |what: &str| refuse(format!("line {}: {what}", number + 1));
        let (key, names) = line
            .split_once('\t')
            .ok_or_else(|| at("no tab; expected a key, a tab, and class names with `;` between"))?;
        let names = names.split(';').map(str::trim).filter(|name| !name.is_empty());
        if lists.insert(key.to_owned(), names.map(str::to_owned).collect()).is_some() {
            let key = clipguard_data::shown(key);
            return Err(at(&format!("`{key}` has a line already")));
        }
    }
    Ok(lists)
}

/// Scores all pictures with the zero-shot head and measures (CLIP_benchmark's
/// `mean_average_precision`).
pub(crate) fn measure(
    what: &MultiLabel,
    checkpoint: &Checkpoint,
    plan: &Plan,
    device: &Device,
    threads: usize,
) -> Result<Record, EvaluateError> {
    let path = Path::new(&what.labels);
    let refuse = |reason: String| EvaluateError::File { path: path.to_owned(), reason };
    let lists = read(path)?;
    let occurring: BTreeSet<&String> = lists.values().flatten().collect();
    let classes = match plan.classes.is_empty() {
        true => occurring.iter().map(|name| (*name).clone()).collect(),
        false => listed_classes(&plan.classes)?,
    };
    if let Some(unknown) = occurring.iter().find(|name| !classes.contains(name)) {
        let unknown = clipguard_data::shown(unknown);
        return Err(refuse(format!("class `{unknown}` is not among those of the plan")));
    }
    if classes.is_empty() {
        return Err(refuse("no class in any line".to_owned()));
    }
    let classifier =
        Classifier::new(checkpoint, &classes, &template_set(&plan.templates)?, device)?;
    let (scores, keys) = scores(&classifier, &what.data, plan, threads)?;
    let mut targets = Vec::with_capacity(scores.len());
    for key in &keys {
        let own = lists.get(key).ok_or_else(|| {
            refuse(format!("no line for the picture `{}`", clipguard_data::shown(key)))
        })?;
        targets.extend(classes.iter().map(|name| own.contains(name)));
    }
    let found = mean_average_precision(&scores, &targets, classes.len())?;
    let mut record = captions::record(plan, checkpoint, &what.data, "zeroshot_classification");
    record.metrics.set("mean_average_precision", found);
    record.digests.head = Some(classifier.head_digest.clone());
    record.extra.insert("pictures".to_owned(), keys.len().into());
    record.extra.insert("labels".to_owned(), what.labels.clone().into());
    Ok(record)
}

/// Similarities `[pictures, classes]` and the keys of the pictures.
fn scores(
    classifier: &Classifier,
    spelling: &str,
    plan: &Plan,
    threads: usize,
) -> Result<(Vec<f32>, Vec<String>), EvaluateError> {
    let clip = &classifier.clip;
    let source = clipguard_data::open(spelling, &Options::default())?;
    let resize = clip.preprocess().resize;
    let options = LoaderOptions { threads, queue: 2 * plan.batch, ..LoaderOptions::default() };
    let mut loader = Loader::new(source.as_ref(), options, move |raw| {
        let key = raw.key.clone();
        Ok((resize.picture(&raw.decode(&Limits::default())?.picture).rgb, key))
    })?;
    let (mut scores, mut keys) = (Vec::new(), Vec::new());
    loop {
        let part: Vec<(Vec<u8>, String)> =
            loader.by_ref().take(plan.batch).collect::<Result<_, _>>()?;
        if part.is_empty() {
            return Ok((scores, keys));
        }
        let views: Vec<&[u8]> = part.iter().map(|(picture, _)| picture.as_slice()).collect();
        let rows = clip.encode_image(clip.preprocess().stack(&views, clip.device()));
        let rows: Tensor<2> = normalise(rows).matmul(classifier.head.matrix.clone());
        scores.extend(rows.into_data().try_to_vec::<f32>().unwrap_or_default());
        keys.extend(part.into_iter().map(|(_, key)| key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of scenes, each with its own class and one that is shown nowhere.
    #[test]
    fn scenes_are_ranked_by_what_they_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.tsv");
        let data = "scenes:48:side=32,part=instyle";
        let source = clipguard_data::open(data, &Options::default()).unwrap();
        let classes = source.classes().unwrap().to_vec();
        let mut text = String::new();
        for sample in source.open(0).unwrap() {
            let sample = sample.unwrap();
            text += &format!("{}\t{}\n", sample.key, classes[sample.label.unwrap()]);
        }
        std::fs::write(&path, &text).unwrap();
        let what = MultiLabel { data: data.to_owned(), labels: path.to_str().unwrap().to_owned() };
        let plan = Plan { templates: "scenes".to_owned(), ..Plan::default() };
        let checkpoint = Checkpoint::embedded().unwrap();
        let measure =
            |what: &MultiLabel, plan: &Plan| measure(what, &checkpoint, plan, &Device::flex(), 1);
        let record = measure(&what, &plan).unwrap();
        let found = record.metrics.get("mean_average_precision").unwrap();
        assert!(found > 0.5, "{found}");
        assert_eq!(record.extra["pictures"], 48);

        let first = text.lines().next().unwrap().to_owned();
        for (list, words) in [
            (text.replacen(&format!("{first}\n"), "", 1), "no line for the picture"),
            (format!("{text}{first}\n"), "has a line already"),
            (format!("{text}no tab\n"), "line 49: no tab"),
            ("a\t\n".to_owned(), "no class in any line"),
        ] {
            std::fs::write(&path, list).unwrap();
            let error = measure(&what, &plan).err().unwrap().to_string();
            assert!(error.contains(words) && error.contains("labels.tsv"), "{error}");
        }
        std::fs::write(&path, text).unwrap();
        let names = folder.path().join("names.txt");
        std::fs::write(&names, "cat\ndog\n").unwrap();
        let plan = Plan { classes: names.to_str().unwrap().to_owned(), ..plan };
        let error = measure(&what, &plan).err().unwrap().to_string();
        assert!(error.contains("is not among those of the plan"), "{error}");
    }
}
