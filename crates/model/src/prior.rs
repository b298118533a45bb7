//! A diffusion prior: a network that restores a picture embedding from a noised one and a text.
//!
//! The network is that of DALL-E 2 (Ramesh et al. 2022, section 2.2) as the public PyTorch
//! replication builds it (version 1.9 and later), under the names of its checkpoints. It is a
//! causal transformer over the row
//!
//! `[text encodings | text embedding | time | noised picture embedding | learned query]`
//!
//! whose output at the last place is the predicted clean embedding, scaled by the root of its
//! width so that an entry has variance 1 on average. Text comes first and is causal, so what it
//! adds to the row are keys and values ([`Text`]) that are computed once for all times and noises.
//!
//! The gradient with respect to the noised embedding is written out ([`Prediction::pull`]), so that
//! what follows it can itself be differentiated.

mod draw;
mod layers;
mod layout;
mod schedule;

pub use draw::Draw;
pub use layout::{Layout, is_constant};
pub use schedule::Schedule;

use crate::{
    ModelError, Parameters, Weights,
    checkpoint::hex,
    weights::{map_file, parse_safetensors},
};
use burn::tensor::{Bool, DType, Int, Tensor, TensorCreationOptions, TensorData};
use layers::{Attended, Attention, Fed, FeedForward, LayerNorm, Past, constant, product};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A token may not look where this is added to its score.
const HIDDEN: f64 = -1e30;

/// A diffusion prior on a device, built from parameters and never changed.
#[derive(Clone, Debug)]
pub struct Prior {
    digest: String,
    layout: Layout,
    schedule: Schedule,
    learned_query: Tensor<1>,
    null_text_encodings: Option<Tensor<3>>,
    null_text_embeds: Tensor<3>,
    null_image_embed: Tensor<2>,
    to_time_embeds: Tensor<2>,
    /// `[buckets, heads]`.
    relative_bias: Tensor<2>,
    layers: Vec<(Attention, FeedForward)>,
    norm: LayerNorm,
    project_out: Tensor<2>,
}

/// What the text adds to the row: keys and values of every layer.
#[derive(Clone, Debug)]
pub struct Text(Vec<Past>);

/// A predicted clean embedding, and what its pullback needs.
#[derive(Clone, Debug)]
pub struct Prediction<'a> {
    prior: &'a Prior,
    /// `[batch, dim]`, scaled by the root of the width.
    pub clean: Tensor<2>,
    /// Rows whose noised embedding was dropped, `[batch, 1]`.
    dropped: Tensor<2, Bool>,
    layers: Vec<(Attended, Fed)>,
    normed: layers::Normed,
    largest: Tensor<3>,
}

impl Prior {
    /// Reads a checkpoint (safetensors); the sizes are those of its tensors.
    ///
    /// # Errors
    /// A file that cannot be read, or whose tensors are not exactly those of a prior.
    pub fn open(
        path: &Path,
        options: impl Into<TensorCreationOptions>,
    ) -> Result<Self, ModelError> {
        let bytes = map_file(path)?;
        let (layout, weights) = Self::parse(&bytes, path)?;
        let prior = Self::new(layout, &Parameters::constant(&weights, options))?;
        Ok(Self { digest: hex(&Sha256::digest(&bytes)), ..prior })
    }

    /// The layout and the weights of a checkpoint.
    ///
    /// # Errors
    /// As [`Prior::open`].
    pub fn read(path: &Path) -> Result<(Layout, Weights), ModelError> {
        Self::parse(&map_file(path)?, path)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<(Layout, Weights), ModelError> {
        let (weights, others) = parse_safetensors(bytes, path)?;
        let layout = Layout::of(&weights, path)?;
        let weights = layout.conform(weights, &others, path)?;
        Ok((layout, weights))
    }

    /// Builds the prior from tensors; leaves among them receive gradients. All are of one
    /// precision, which is that of the prior.
    ///
    /// # Errors
    /// When a parameter is missing.
    pub fn new(layout: Layout, p: &Parameters) -> Result<Self, ModelError> {
        let name = |part: &str| format!("net.causal_transformer.{part}");
        Ok(Self {
            digest: String::new(),
            schedule: Schedule::cosine(layout.steps),
            learned_query: p.get("net.learned_query")?,
            null_text_encodings: match layout.text {
                0 => None,
                _ => Some(p.get("net.null_text_encodings")?),
            },
            null_text_embeds: p.get("net.null_text_embeds")?,
            null_image_embed: p.get("net.null_image_embed")?,
            to_time_embeds: p.get("net.to_time_embeds.0.weight")?,
            relative_bias: p.get(&name("rel_pos_bias.relative_attention_bias.weight"))?,
            layers: (0..layout.depth).map(|i| layer(p, i)).collect::<Result<_, _>>()?,
            norm: LayerNorm(p.get(&name("norm.g"))?),
            project_out: p.get(&name("project_out.weight"))?,
            layout,
        })
    }

    /// Its sizes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// SHA-256 of its file in hex; empty when it was not read from one.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its noise schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Its precision.
    pub fn dtype(&self) -> DType {
        self.learned_query.dtype()
    }

    /// The factor between unit embeddings and those the network sees: `sqrt(dim)`.
    pub fn scale(&self) -> f64 {
        (self.layout.dim as f64).sqrt()
    }

    /// The row's beginning for texts: their embeddings `[batch, dim]` (one row serves all), and
    /// what the text tower says of each token, `[batch, tokens, dim]`.
    ///
    /// Tokens that are zero in all entries are padding and replaced by learned ones, as are those
    /// that are not given; tokens beyond the prior's places are cut off.
    pub fn text(&self, embed: Tensor<2>, encodings: Option<Tensor<3>>) -> Text {
        let [batch, dim] = embed.dims();
        let embed = embed.reshape([batch, 1, dim]);
        let Some(nulls) = &self.null_text_encodings else { return self.after(embed) };
        let nulls = nulls.clone().expand([batch, self.layout.text, dim]);
        let tokens = match encodings {
            None => nulls,
            Some(given) => {
                let count = given.dims()[1].min(self.layout.text);
                let given = given.narrow(1, 0, count);
                let padding = given.clone().abs().max_dim(2).equal_elem(0.0);
                let own = nulls.clone().narrow(1, 0, count);
                let given = given.mask_where(padding.expand([batch, count, dim]), own);
                match self.layout.text - count {
                    0 => given,
                    rest => Tensor::cat(vec![given, nulls.narrow(1, count, rest)], 1),
                }
            }
        };
        self.after(Tensor::cat(vec![tokens, embed], 1))
    }

    /// The row's beginning where the text is dropped; one row.
    pub fn no_text(&self) -> Text {
        let embed = self.null_text_embeds.clone();
        self.after(match &self.null_text_encodings {
            Some(nulls) => Tensor::cat(vec![nulls.clone(), embed], 1),
            None => embed,
        })
    }

    fn after(&self, tokens: Tensor<3>) -> Text {
        let beginning = self.layers.iter().map(|(attention, _)| attention.beginning()).collect();
        self.extended(&Text(beginning), tokens)
    }

    /// `text` with more tokens `[batch, tokens, dim]` behind.
    fn extended(&self, text: &Text, tokens: Tensor<3>) -> Text {
        let bias = self.bias(text.tokens(), &tokens);
        let (mut x, mut all) = (tokens, Vec::new());
        for ((attention, feed), past) in self.layers.iter().zip(&text.0) {
            let (y, attended) = attention.forward(x.clone(), past, bias.clone());
            all.push(attended.into_past());
            // What leaves the last layer here is never looked at.
            if all.len() < self.layers.len() {
                x = x + y;
                x = x.clone() + feed.forward(x).0;
            }
        }
        Text(all)
    }

    /// Relative position bias and causal mask of the tokens `x` behind `past` others,
    /// `[1, heads, tokens, 1 + past + tokens]`.
    fn bias(&self, past: usize, x: &Tensor<3>) -> Tensor<4> {
        let tokens = x.dims()[1];
        let seen = 1 + past + tokens;
        let pairs = || (past..past + tokens).flat_map(move |i| (0..seen).map(move |j| (i, j)));
        let buckets: Vec<i64> = pairs().map(|(i, j)| bucket(i.saturating_sub(j))).collect();
        let index = TensorData::new(buckets, [tokens * seen]);
        let index = Tensor::<1, Int>::from_data(index, &self.relative_bias.device());
        let bias = self.relative_bias.clone().select(0, index);
        let bias = bias.reshape([tokens, seen, self.layout.heads]).permute([2, 0, 1]);
        let hidden = pairs().map(|(i, j)| if j > i + 1 { HIDDEN } else { 0.0 }).collect();
        bias.unsqueeze::<4>() + constant(hidden, [1, 1, tokens, seen], x)
    }

    /// The clean embeddings behind `noised` ones `[batch, dim]` (scaled) at their `times`.
    ///
    /// `no_image` says in which rows the noised embedding is dropped; the prediction of these does
    /// not depend on it.
    pub fn predict(
        &self,
        noised: Tensor<2>,
        times: &[usize],
        text: &Text,
        no_image: &[bool],
    ) -> Prediction<'_> {
        let [batch, dim] = noised.dims();
        let index: Vec<i64> = times.iter().map(|&t| t as i64).collect();
        let index = TensorData::new(index, [batch]);
        let index = Tensor::<1, Int>::from_data(index, &self.to_time_embeds.device());
        let time = self.to_time_embeds.clone().select(0, index).reshape([batch, 1, dim]);
        let dropped = flags(no_image, &noised);
        let nothing = self.null_image_embed.clone().expand([batch, dim]);
        let image = noised.mask_where(dropped.clone().expand([batch, dim]), nothing);
        let query = self.learned_query.clone().reshape([1, 1, dim]).expand([batch, 1, dim]);
        let mut x = Tensor::cat(vec![image.reshape([batch, 1, dim]), query], 1);
        let before = self.extended(text, time);
        let bias = self.bias(before.tokens(), &x);
        let mut layers = Vec::with_capacity(self.layers.len());
        for ((attention, feed), past) in self.layers.iter().zip(&before.0) {
            let (y, attended) = attention.forward(x.clone(), past, bias.clone());
            x = x + y;
            let (y, fed) = feed.forward(x.clone());
            x = x + y;
            layers.push((attended, fed));
        }
        // "Stable" norm: divided by the largest entry (not the largest size), as a constant.
        let last = x.narrow(1, 1, 1);
        let largest = last.clone().max_dim(2).detach();
        let (y, normed) = self.norm.forward(last / largest.clone());
        let clean = product(y, &self.project_out).reshape([batch, dim]);
        Prediction { prior: self, clean, dropped, layers, normed, largest }
    }
}

impl Prediction<'_> {
    /// Gradient with respect to the noised embeddings, from that with respect to the prediction.
    pub fn pull(&self, d: Tensor<2>) -> Tensor<2> {
        let [batch, dim] = d.dims();
        let d = d.reshape([batch, 1, dim]);
        let d = product(d, &self.prior.project_out.clone().transpose());
        let d = self.prior.norm.pull(&self.normed, d) / self.largest.clone();
        let mut d = Tensor::cat(vec![d.zeros_like(), d], 1);
        for ((attention, feed), (attended, fed)) in self.prior.layers.iter().zip(&self.layers).rev()
        {
            d = d.clone() + feed.pull(fed, d);
            d = d.clone() + attention.pull(attended, d);
        }
        let d = d.narrow(1, 0, 1).reshape([batch, dim]);
        d.mask_fill(self.dropped.clone().expand([batch, dim]), 0.0)
    }
}

impl Text {
    fn tokens(&self) -> usize {
        self.0.first().map_or(0, Past::tokens)
    }

    /// These rows, but `other` (one row) in those where `rows` holds.
    #[must_use]
    pub fn replaced(&self, rows: &[bool], other: &Self) -> Self {
        let pick = |own: &Tensor<3>, other: &Tensor<3>| {
            let [_, tokens, width] = own.dims();
            let shape = [rows.len(), tokens, width];
            let mask = flags(rows, own).reshape([rows.len(), 1, 1]).expand(shape);
            own.clone().expand(shape).mask_where(mask, other.clone().expand(shape))
        };
        let past = |(own, other): (&Past, &Past)| Past {
            keys: pick(&own.keys, &other.keys),
            values: pick(&own.values, &other.values),
        };
        Self(self.0.iter().zip(&other.0).map(past).collect())
    }
}

/// One flag a row, `[rows, 1]`.
fn flags<const D: usize>(rows: &[bool], like: &Tensor<D>) -> Tensor<2, Bool> {
    Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len(), 1]), &like.device())
}

/// Bucket of a distance to the left (Raffel et al. 2020, one-sided, 32 buckets up to 128).
fn bucket(distance: usize) -> i64 {
    const EXACT: usize = layout::BUCKETS / 2;
    if distance < EXACT {
        return distance as i64;
    }
    let ratio = (distance as f64 / EXACT as f64).ln() / (128.0 / EXACT as f64).ln();
    (EXACT as i64 + (ratio * EXACT as f64) as i64).min(layout::BUCKETS as i64 - 1)
}

fn layer(p: &Parameters, i: usize) -> Result<(Attention, FeedForward), ModelError> {
    let (attention, feed) = (|name| layout::at(i, 0, name), |name| layout::at(i, 1, name));
    let frequencies: Tensor<1> = p.get(&attention("rotary_emb.freqs"))?;
    let inner = feed("3.g");
    Ok((
        Attention {
            norm: LayerNorm(p.get(&attention("norm.g"))?),
            to_q: p.get(&attention("to_q.weight"))?,
            to_kv: p.get(&attention("to_kv.weight"))?,
            null_kv: p.get(&attention("null_kv"))?,
            to_out: p.get(&attention("to_out.0.weight"))?,
            out_norm: LayerNorm(p.get(&attention("to_out.1.g"))?),
            frequencies: frequencies.into_data().iter::<f64>().collect(),
        },
        FeedForward {
            norm: LayerNorm(p.get(&feed("0.g"))?),
            inward: p.get(&feed("1.weight"))?,
            inner: match p.has(&inner) {
                true => Some(LayerNorm(p.get(&inner)?)),
                false => None,
            },
            outward: p.get(&feed("5.weight"))?,
        },
    ))
}
