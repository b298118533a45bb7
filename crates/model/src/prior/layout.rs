//! Names, shapes and sizes of a prior's checkpoint.

use super::Schedule;
use crate::{
    Array, ModelError, Weights,
    parameters::{Entry, Start, begin, first_ten},
};
use std::path::Path;

/// Buckets of the relative position bias.
pub(super) const BUCKETS: usize = 32;

/// The sizes of a prior. All are read from the shapes of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Width of embeddings and tokens.
    pub dim: usize,
    /// Layers.
    pub depth: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of a head; even.
    pub head_width: usize,
    /// Inner width of the feed-forward.
    pub inner: usize,
    /// Places for encodings of text tokens; 0 for a prior that knows the text embedding alone.
    pub text: usize,
    /// Times of the schedule.
    pub steps: usize,
    /// Whether the feed-forward has a norm inside.
    pub normformer: bool,
}

/// Name of a tensor of layer `i`: part 0 is the attention, part 1 the feed-forward.
pub(super) fn at(i: usize, part: usize, name: &str) -> String {
    format!("net.causal_transformer.layers.{i}.{part}.{name}")
}

impl Layout {
    /// Number of rotary frequencies.
    fn frequencies(&self) -> usize {
        self.head_width.min(32) / 2
    }

    /// All tensors, with how training starts them (the replication's initialisation).
    pub fn entries(&self) -> Vec<Entry> {
        let (one, normal) = (Start::Value(1.0), Start::Normal(1.0));
        let fan = |inputs: usize| Start::Uniform(1.0 / (inputs as f32).sqrt());
        let (dim, all) = (self.dim, self.heads * self.head_width);
        let mut list = Vec::new();
        let mut add = |name: String, shape: &[usize], start| {
            list.push(Entry { name, shape: shape.to_vec(), start });
        };
        add("net.learned_query".to_owned(), &[dim], normal);
        add("net.null_text_encodings".to_owned(), &[1, self.text, dim], normal);
        add("net.null_text_embeds".to_owned(), &[1, 1, dim], normal);
        add("net.null_image_embed".to_owned(), &[1, dim], normal);
        add("net.to_time_embeds.0.weight".to_owned(), &[self.steps, dim], normal);
        let transformer = |name: &str| format!("net.causal_transformer.{name}");
        let bias = transformer("rel_pos_bias.relative_attention_bias.weight");
        add(bias, &[BUCKETS, self.heads], normal);
        for i in 0..self.depth {
            add(at(i, 0, "null_kv"), &[2, self.head_width], normal);
            add(at(i, 0, "norm.g"), &[dim], one);
            add(at(i, 0, "to_q.weight"), &[all, dim], fan(dim));
            add(at(i, 0, "to_kv.weight"), &[2 * self.head_width, dim], fan(dim));
            add(at(i, 0, "rotary_emb.freqs"), &[self.frequencies()], one);
            add(at(i, 0, "to_out.0.weight"), &[dim, all], fan(all));
            add(at(i, 0, "to_out.1.g"), &[dim], one);
            add(at(i, 1, "0.g"), &[dim], one);
            add(at(i, 1, "1.weight"), &[2 * self.inner, dim], fan(dim));
            if self.normformer {
                add(at(i, 1, "3.g"), &[self.inner], one);
            }
            add(at(i, 1, "5.weight"), &[dim, self.inner], fan(self.inner));
        }
        add(transformer("norm.g"), &[dim], one);
        add(transformer("project_out.weight"), &[dim, dim], fan(dim));
        list
    }

    /// Weights to start training from.
    pub fn initial_weights(&self, seed: u64) -> Weights {
        let mut weights = begin(self.entries(), seed);
        let channels = 2.0 * self.frequencies() as f32;
        for (_, array) in weights.iter_mut().filter(|(name, _)| is_constant(name)) {
            for (j, frequency) in array.data.iter_mut().enumerate() {
                *frequency = 10000f32.powf(-2.0 * j as f32 / channels);
            }
        }
        weights
    }

    /// The sizes of the prior that `weights` hold.
    ///
    /// # Errors
    /// When a tensor that says a size is missing or has an impossible shape.
    pub fn of(weights: &Weights, path: &Path) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::File { path: path.to_owned(), reason };
        let shape = |name: &str, rank: usize| match weights.get(name).map(|array| &array.shape) {
            Some(shape) if shape.len() == rank => Ok(shape.as_slice()),
            Some(shape) => Err(refuse(format!(
                "tensor `{name}` has shape {shape:?}; {rank} dimensions are needed"
            ))),
            None => Err(refuse(missing(weights, name))),
        };
        let text = shape("net.null_text_encodings", 3)?[1];
        shape("net.null_text_embeds", 3)?;
        let dim = shape("net.learned_query", 1)?[0];
        let steps = shape("net.to_time_embeds.0.weight", 2)?[0];
        let head_width = shape(&at(0, 0, "null_kv"), 2)?[1];
        let all = shape(&at(0, 0, "to_q.weight"), 2)?[0];
        let inner = shape(&at(0, 1, "5.weight"), 2)?[1];
        let depth = (0..).take_while(|i| weights.contains_key(&at(*i, 0, "to_q.weight"))).count();
        for (what, holds) in [
            ("a width above 0", dim > 0),
            ("an even width of heads", head_width > 0 && head_width % 2 == 0),
            ("queries of whole heads", head_width > 0 && all > 0 && all % head_width == 0),
            ("at least two times", steps > 1),
            ("an inner width above 0", inner > 0),
        ] {
            if !holds {
                return Err(refuse(format!("a prior needs {what}")));
            }
        }
        let normformer = weights.contains_key(&at(0, 1, "3.g"));
        let heads = all / head_width;
        Ok(Self { dim, depth, heads, head_width, inner, text, steps, normformer })
    }

    /// Exactly the tensors of this layout: nothing missing, nothing extra, every shape right.
    ///
    /// The schedule's buffers and a CLIP model (`noise_scheduler.*`, `clip.*`), which whole
    /// checkpoints carry along, are left out; the schedule must be the cosine one.
    pub fn conform(
        &self,
        mut weights: Weights,
        others: &[String],
        path: &Path,
    ) -> Result<Weights, ModelError> {
        self.check_schedule(&weights, path)?;
        let carried = |n: &str| n.starts_with("noise_scheduler.") || n.starts_with("clip.");
        weights.retain(|name, _| !carried(name));
        let foreign: Vec<&String> = others.iter().filter(|name| !carried(name)).collect();
        let (mut found, mut missing) = (Weights::new(), Vec::new());
        for entry in self.entries() {
            match weights.remove(&entry.name) {
                Some(array) if array.shape == entry.shape => {
                    found.insert(entry.name, array);
                }
                Some(Array { shape, .. }) => {
                    let reason = format!(
                        "tensor `{}` has shape {shape:?}, the other tensors ask for {:?}",
                        entry.name, entry.shape
                    );
                    return Err(ModelError::File { path: path.to_owned(), reason });
                }
                None => missing.push(entry.name),
            }
        }
        let extra: Vec<&String> = weights.keys().chain(foreign).collect();
        if missing.is_empty() && extra.is_empty() {
            return Ok(found);
        }
        Err(ModelError::Keys {
            path: path.to_owned(),
            missing: first_ten(missing.iter()),
            extra: first_ten(extra.into_iter()),
        })
    }

    /// A checkpoint that brings its schedule along must bring the cosine one of as many steps.
    fn check_schedule(&self, weights: &Weights, path: &Path) -> Result<(), ModelError> {
        let name = "noise_scheduler.alphas_cumprod";
        let Some(array) = weights.get(name) else { return Ok(()) };
        let ours = Schedule::cosine(self.steps).alphas_cumprod;
        let same = array.data.len() == self.steps
            && array.data.iter().zip(&ours).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4);
        match same {
            true => Ok(()),
            false => Err(ModelError::File {
                path: path.to_owned(),
                reason: format!("`{name}` is not the cosine schedule of {} steps", self.steps),
            }),
        }
    }
}

/// Whether a tensor is a constant that training leaves alone.
pub fn is_constant(name: &str) -> bool {
    name.ends_with("rotary_emb.freqs")
}

/// Why `name` is missing, where the reason is known.
fn missing(weights: &Weights, name: &str) -> String {
    let has = |part: &str| weights.keys().any(|n| n.contains(part));
    let why = if has("null_text_embed") && !has("null_text_embeds") {
        "; this is the layout before version 1.9 of the public replication, whose attention may \
         be another one: train anew, or convert it with a newer version"
    } else if has("to_time_embeds.0.1") {
        "; this prior embeds its times by a network, and only a table is understood"
    } else if !has("net.") {
        "; the tensors of a prior begin with `net.`, so this is another kind of model"
    } else {
        ""
    };
    format!("the weights lack `{name}`{why}")
}
