//! The parameters of an architecture: names, shapes, and how training from scratch starts them.
//!
//! One list serves the checks of a checkpoint (nothing missing, nothing extra, every shape right),
//! the count of parameters and the initialisation, so the three cannot disagree.

use crate::{
    Array, ModelError, Weights,
    config::{Architecture, Transformer, Vision},
};
use burn::tensor::{Shape, Tensor, TensorCreationOptions, TensorData};
use clipguard_data::Stream;
use clipguard_ops::Precision;
use std::{collections::BTreeMap, path::Path};

/// How a parameter starts (section "Initialisation" of open_clip's and OpenAI's model files).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Start {
    /// This value everywhere.
    Value(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform in `[-a, a]`.
    Uniform(f32),
}

/// One parameter or buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Checkpoint key.
    pub name: String,
    /// Dimensions as in the checkpoint.
    pub shape: Vec<usize>,
    pub(crate) start: Start,
}

impl Entry {
    /// Whether it is a buffer (BatchNorm statistics) that the optimiser leaves alone.
    pub fn is_buffer(&self) -> bool {
        is_buffer(&self.name)
    }
}

/// Whether `name` is a buffer: a statistic that the forward pass maintains, not a parameter.
pub fn is_buffer(name: &str) -> bool {
    name.ends_with("running_mean")
        || name.ends_with("running_var")
        || name.ends_with("num_batches_tracked")
}

/// All parameters and buffers of an architecture under open_clip's keys.
pub fn entries(arch: &Architecture) -> Vec<Entry> {
    let mut list = List(Vec::new());
    match &arch.vision {
        Vision::Vit { image_size, patch, transformer, ln_pre, .. } => {
            let (w, grid) = (transformer.width, image_size / patch);
            let normal = Start::Normal((w as f32).powf(-0.5));
            list.add("visual.class_embedding", &[w], normal);
            list.add("visual.positional_embedding", &[grid * grid + 1, w], normal);
            let fan = Start::Uniform(1.0 / ((3 * patch * patch) as f32).sqrt());
            list.add("visual.conv1.weight", &[w, 3, *patch, *patch], fan);
            if *ln_pre {
                list.norm("visual.ln_pre", w);
            }
            list.blocks("visual.transformer", transformer, false);
            list.norm("visual.ln_post", w);
            list.add("visual.proj", &[w, arch.embed_dim], normal);
        }
        Vision::ResNet { image_size, layers, width, .. } => {
            list.resnet(*image_size, layers, *width, arch.embed_dim);
        }
    }
    let text = &arch.text;
    let w = text.transformer.width;
    let prefix = if arch.custom_text { "text." } else { "" };
    list.add(
        &format!("{prefix}token_embedding.weight"),
        &[text.vocabulary, w],
        Start::Normal(0.02),
    );
    list.add(&format!("{prefix}positional_embedding"), &[text.context, w], Start::Normal(0.01));
    list.blocks(&format!("{prefix}transformer"), &text.transformer, true);
    list.norm(&format!("{prefix}ln_final"), w);
    if text.projection {
        let normal = Start::Normal((w as f32).powf(-0.5));
        if text.projection_bias {
            let name = format!("{prefix}text_projection");
            list.add(&format!("{name}.weight"), &[arch.embed_dim, w], normal);
            list.add(&format!("{name}.bias"), &[arch.embed_dim], Start::Value(0.0));
        } else {
            list.add(&format!("{prefix}text_projection"), &[w, arch.embed_dim], normal);
        }
    }
    list.add("logit_scale", &[], Start::Value(arch.init_logit_scale));
    if let Some(bias) = arch.init_logit_bias {
        list.add("logit_bias", &[], Start::Value(bias));
    }
    list.0
}

struct List(Vec<Entry>);

impl List {
    fn add(&mut self, name: &str, shape: &[usize], start: Start) {
        self.0.push(Entry { name: name.to_owned(), shape: shape.to_vec(), start });
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width], Start::Value(1.0));
        self.add(&format!("{name}.bias"), &[width], Start::Value(0.0));
    }

    fn blocks(&mut self, prefix: &str, t: &Transformer, text: bool) {
        let (w, m) = (t.width, t.mlp);
        let width = w as f32;
        let fan = |inputs: usize| Start::Uniform(1.0 / (inputs as f32).sqrt());
        let residual = Start::Normal(width.powf(-0.5) * (2.0 * t.layers as f32).powf(-0.5));
        for i in 0..t.layers {
            let p = format!("{prefix}.resblocks.{i}");
            self.norm(&format!("{p}.ln_1"), w);
            let (q, o, f, c) = if text {
                let inner = Start::Normal((2.0 * width).powf(-0.5));
                (Start::Normal(width.powf(-0.5)), residual, inner, residual)
            } else {
                (Start::Uniform((6.0 / (4.0 * width)).sqrt()), fan(w), fan(w), fan(m))
            };
            self.add(&format!("{p}.attn.in_proj_weight"), &[3 * w, w], q);
            self.add(&format!("{p}.attn.in_proj_bias"), &[3 * w], Start::Value(0.0));
            self.add(&format!("{p}.attn.out_proj.weight"), &[w, w], o);
            self.add(&format!("{p}.attn.out_proj.bias"), &[w], Start::Value(0.0));
            self.norm(&format!("{p}.ln_2"), w);
            self.add(&format!("{p}.mlp.c_fc.weight"), &[m, w], f);
            self.add(&format!("{p}.mlp.c_fc.bias"), &[m], fan(w));
            self.add(&format!("{p}.mlp.c_proj.weight"), &[w, m], c);
            self.add(&format!("{p}.mlp.c_proj.bias"), &[w], fan(m));
            if let Some(scale) = t.layer_scale {
                self.add(&format!("{p}.ls_1.gamma"), &[w], Start::Value(scale));
                self.add(&format!("{p}.ls_2.gamma"), &[w], Start::Value(scale));
            }
        }
    }

    fn convolution(&mut self, conv: &str, norm: &str, out: usize, inputs: usize, kernel: usize) {
        let fan = 1.0 / ((inputs * kernel * kernel) as f32).sqrt();
        let shape = [out, inputs, kernel, kernel];
        self.add(&format!("{conv}.weight"), &shape, Start::Uniform(fan));
        // The last BatchNorm of a block starts at zero, so that a block starts as its shortcut.
        let last = norm.ends_with("bn3") && norm.contains("layer");
        let weight = Start::Value(if last { 0.0 } else { 1.0 });
        self.add(&format!("{norm}.weight"), &[out], weight);
        self.add(&format!("{norm}.bias"), &[out], Start::Value(0.0));
        self.add(&format!("{norm}.running_mean"), &[out], Start::Value(0.0));
        self.add(&format!("{norm}.running_var"), &[out], Start::Value(1.0));
        self.add(&format!("{norm}.num_batches_tracked"), &[], Start::Value(0.0));
    }

    fn resnet(&mut self, image_size: usize, layers: &[usize; 4], width: usize, embed: usize) {
        self.convolution("visual.conv1", "visual.bn1", width / 2, 3, 3);
        self.convolution("visual.conv2", "visual.bn2", width / 2, width / 2, 3);
        self.convolution("visual.conv3", "visual.bn3", width, width / 2, 3);
        let mut inputs = width;
        for (stage, blocks) in layers.iter().enumerate() {
            let planes = width << stage;
            for block in 0..*blocks {
                let p = format!("visual.layer{}.{block}", stage + 1);
                let name = |part: &str| format!("{p}.{part}");
                self.convolution(&name("conv1"), &name("bn1"), planes, inputs, 1);
                self.convolution(&name("conv2"), &name("bn2"), planes, planes, 3);
                self.convolution(&name("conv3"), &name("bn3"), 4 * planes, planes, 1);
                if has_shortcut(stage, block, inputs, planes) {
                    let (conv, norm) = (name("downsample.0"), name("downsample.1"));
                    self.convolution(&conv, &norm, 4 * planes, inputs, 1);
                }
                inputs = 4 * planes;
            }
        }
        let (grid, normal) = (image_size / 32, Start::Normal((inputs as f32).powf(-0.5)));
        let uniform = Start::Uniform((inputs as f32).powf(-0.5));
        self.add("visual.attnpool.positional_embedding", &[grid * grid + 1, inputs], normal);
        for (name, out) in [("q", inputs), ("k", inputs), ("v", inputs), ("c", embed)] {
            let p = format!("visual.attnpool.{name}_proj");
            self.add(&format!("{p}.weight"), &[out, inputs], normal);
            self.add(&format!("{p}.bias"), &[out], uniform);
        }
    }
}

/// Whether a ResNet block's shortcut is a projection.
pub(crate) fn has_shortcut(stage: usize, block: usize, inputs: usize, planes: usize) -> bool {
    (block == 0 && stage > 0) || inputs != 4 * planes
}

/// Weights to start training from, every parameter from its own stream of `seed`.
pub fn initial_weights(arch: &Architecture, seed: u64) -> Weights {
    begin(entries(arch), seed)
}

/// The starting weights of any list of entries.
pub(crate) fn begin(entries: Vec<Entry>, seed: u64) -> Weights {
    let start = |entry: Entry| {
        let n = entry.shape.iter().product::<usize>();
        let mut stream = Stream::keyed(seed, "initial-weights", &entry.name);
        let data = match entry.start {
            Start::Value(v) => vec![v; n],
            Start::Normal(sd) => (0..n).map(|_| sd * stream.normal()).collect(),
            Start::Uniform(a) => (0..n).map(|_| stream.within(-a, a)).collect(),
        };
        (entry.name, Array::new(entry.shape, data))
    };
    entries.into_iter().map(start).collect()
}

/// Number of parameters (buffers not counted), in all and of the picture tower.
pub fn parameter_counts(arch: &Architecture) -> (usize, usize) {
    let count = |only_vision: bool| {
        entries(arch)
            .iter()
            .filter(|e| !e.is_buffer() && (!only_vision || e.name.starts_with("visual.")))
            .map(|e| e.shape.iter().product::<usize>())
            .sum()
    };
    (count(false), count(true))
}

/// Entries of OpenAI's archives and old files that carry nothing.
pub(crate) fn is_harmless(name: &str) -> bool {
    matches!(name, "input_resolution" | "context_length" | "vocab_size" | "attn_mask")
        || name.ends_with(".attn_mask")
        || name.ends_with("position_ids")
}

/// Whether a file has every parameter of `arch` in its shape, and nothing else.
pub(crate) fn fits(
    found: &BTreeMap<String, crate::container::Entry>,
    arch: &Architecture,
    path: &Path,
) -> Result<(), ModelError> {
    let mut left: BTreeMap<&str, &[usize]> = found
        .iter()
        .filter(|(name, _)| !is_harmless(name))
        .map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
        .collect();
    let mut missing = Vec::new();
    for entry in entries(arch) {
        let found = names_of(&entry.name).iter().find_map(|name| left.remove(name.as_str()));
        match found {
            Some(shape) if fills(shape, &entry.shape) => {}
            Some(shape) => return Err(other_shape(path, &entry, shape, arch)),
            None if entry.name.ends_with("num_batches_tracked") || entry.name == "logit_bias" => {}
            None => missing.push(entry.name),
        }
    }
    let extra: Vec<String> = left.keys().map(|name| (*name).to_owned()).collect();
    complete(path, &missing, &extra)
}

/// A parameter's possible names: files differ in the prefix of the text tower.
fn names_of(name: &str) -> [String; 3] {
    let bare = name.strip_prefix("text.").unwrap_or(name).to_owned();
    [name.to_owned(), bare, format!("text.{name}")]
}

fn fills(shape: &[usize], wanted: &[usize]) -> bool {
    shape == wanted || (wanted.is_empty() && shape == [1])
}

fn other_shape(path: &Path, entry: &Entry, found: &[usize], arch: &Architecture) -> ModelError {
    let Entry { name, shape, .. } = entry;
    let mut reason =
        format!("tensor `{name}` has shape {found:?}, the architecture needs {shape:?}");
    if let (Vision::Vit { image_size, patch, .. }, "visual.positional_embedding") =
        (&arch.vision, name.as_str())
    {
        let grid = (found[0].saturating_sub(1) as f64).sqrt() as usize;
        reason = format!(
            "{reason}: the configuration says image_size {image_size}, this table is for {}",
            grid * patch
        );
    }
    ModelError::File { path: path.to_owned(), reason }
}

fn complete(path: &Path, missing: &[String], extra: &[String]) -> Result<(), ModelError> {
    if missing.is_empty() && extra.is_empty() {
        return Ok(());
    }
    let is_there = |tower: &str| !missing.iter().any(|name| name.starts_with(tower));
    if missing.iter().any(|name| name.ends_with("token_embedding.weight")) && is_there("visual.") {
        return Err(ModelError::NoTexts { path: path.to_owned() });
    }
    Err(ModelError::Keys {
        path: path.to_owned(),
        missing: first_ten(missing.iter()),
        extra: first_ten(extra.iter()),
    })
}

/// Brings weights to exactly the entries of `arch`: prefixes, shapes, nothing missing or extra.
/// `others` are names of entries that are no float arrays. Returns warnings.
pub fn conform(
    mut weights: Weights,
    others: &[String],
    arch: &Architecture,
    path: &Path,
) -> Result<(Weights, Vec<String>), ModelError> {
    let mut warnings = Vec::new();
    weights.retain(|name, _| !is_harmless(name));
    let counts = |n: &String| n.ends_with("num_batches_tracked");
    let foreign: Vec<&String> = others.iter().filter(|n| !is_harmless(n) && !counts(n)).collect();
    let mut result = Weights::new();
    let mut missing = Vec::new();
    for entry in entries(arch) {
        let found = names_of(&entry.name).iter().find_map(|name| weights.remove(name));
        match found {
            Some(array) if fills(&array.shape, &entry.shape) => {
                result.insert(entry.name, Array::new(entry.shape, array.data));
            }
            Some(array) => return Err(other_shape(path, &entry, &array.shape, arch)),
            None if entry.name.ends_with("num_batches_tracked") => {
                result.insert(entry.name, Array::new(Vec::new(), vec![0.0]));
            }
            None if entry.name == "logit_bias" => {
                warnings.push("no logit_bias in the file: 0 is used".to_owned());
                result.insert(entry.name, Array::new(Vec::new(), vec![0.0]));
            }
            None => missing.push(entry.name),
        }
    }
    let extra: Vec<String> = weights.keys().chain(foreign).cloned().collect();
    complete(path, &missing, &extra)?;
    Ok((result, warnings))
}

pub(crate) fn first_ten<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let n = names.len();
    if n == 0 {
        return "none".to_owned();
    }
    let list: Vec<String> =
        names.take(10).map(|s| s.escape_debug().to_string().chars().take(80).collect()).collect();
    let more = if n > 10 { format!(" and {} more", n - 10) } else { String::new() };
    list.join(", ") + &more
}

/// Parameters as tensors, by name; every one is kept flat, so that a leaf's gradient can be asked
/// for without knowing its rank.
#[derive(Clone, Debug)]
pub struct Parameters {
    flat: BTreeMap<String, (Vec<usize>, Tensor<1>)>,
    arithmetic: Arithmetic,
}

/// How a model multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// In f32.
    #[default]
    F32,
    /// Factors of the towers' products rounded to bf16, their sums and everything else (norms, softmax,
    /// residual stream, final projection) in f32. For inference on the processor: inputs that a gradient
    /// is asked for are multiplied in f32.
    Bf16,
}

impl Parameters {
    /// Puts weights on a device as constants.
    pub fn constant(weights: &Weights, options: impl Into<TensorCreationOptions>) -> Self {
        Self::with(weights, options, |_| false)
    }

    /// As [`Parameters::constant`], without a copy.
    pub fn moved(weights: Weights, options: impl Into<TensorCreationOptions>) -> Self {
        Self::of(weights.into_iter(), options, |_| false)
    }

    /// Puts weights on a device, in a precision of choice; those for which `trained` holds become
    /// leaves that gradients can be asked for (the device must be an autodiff device).
    pub fn with(
        weights: &Weights,
        options: impl Into<TensorCreationOptions>,
        trained: impl Fn(&str) -> bool,
    ) -> Self {
        let copies = weights.iter().map(|(name, array)| (name.clone(), array.clone()));
        Self::of(copies, options, trained)
    }

    fn of(
        weights: impl Iterator<Item = (String, Array)>,
        options: impl Into<TensorCreationOptions>,
        trained: impl Fn(&str) -> bool,
    ) -> Self {
        let options = options.into();
        let flat = weights
            .map(|(name, Array { shape, data })| {
                let size = data.len();
                let data = TensorData::new(data, [size]);
                let mut tensor = Tensor::<1>::from_data(data, options.clone());
                if trained(&name) {
                    tensor = tensor.require_grad();
                }
                (name, (shape, tensor))
            })
            .collect();
        Self { flat, arithmetic: Arithmetic::F32 }
    }

    /// The same, for a model that multiplies in another way.
    pub fn computing(self, arithmetic: Arithmetic) -> Self {
        Self { arithmetic, ..self }
    }

    /// What the towers' products without gradients are computed in.
    pub(crate) fn precision(&self) -> Precision {
        match self.arithmetic {
            Arithmetic::F32 => Precision::F32,
            Arithmetic::Bf16 => Precision::Bf16,
        }
    }

    /// The parameter `name` in its own shape.
    pub(crate) fn get<const D: usize>(&self, name: &str) -> Result<Tensor<D>, ModelError> {
        let (shape, flat) =
            self.flat.get(name).ok_or_else(|| ModelError::Missing { name: name.to_owned() })?;
        if shape.len() != D && !(D == 1 && shape.is_empty()) {
            return Err(ModelError::Missing { name: format!("{name} of rank {D}") });
        }
        if D == 1 {
            let n = shape.iter().product::<usize>().max(1);
            return Ok(flat.clone().reshape(Shape::from([n; D])));
        }
        Ok(flat.clone().reshape(Shape::from(shape.clone())))
    }

    /// Whether there is a parameter `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.flat.contains_key(name)
    }

    /// All leaves by name, flat.
    pub fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.flat.iter().map(|(name, (_, tensor))| (name.as_str(), tensor))
    }
}
