//! CLIP's text transformer.

use crate::{
    ModelError, Parameters,
    config::{Architecture, Pool},
    layers::{Blocks, LayerNorm, Linear},
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clipguard_ops as ops;

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a model")]
enum Projection {
    None,
    Matrix(Tensor<2>),
    Linear(Linear),
}

/// Token ids to embedding.
#[derive(Clone, Debug)]
pub(crate) struct TextTower {
    token_embedding: Tensor<2>,
    positional_embedding: Tensor<2>,
    transformer: Blocks,
    ln_final: LayerNorm,
    projection: Projection,
    pool: Pool,
    causal: bool,
}

impl TextTower {
    pub(crate) fn read(p: &Parameters, arch: &Architecture) -> Result<Self, ModelError> {
        let text = &arch.text;
        let prefix = if arch.custom_text { "text." } else { "" };
        let at = |name: &str| format!("{prefix}{name}");
        Ok(Self {
            token_embedding: p.get(&at("token_embedding.weight"))?,
            positional_embedding: p.get(&at("positional_embedding"))?,
            transformer: Blocks::read(p, &at("transformer"), &text.transformer, text.causal)?,
            ln_final: LayerNorm::read(p, &at("ln_final"), text.transformer.eps)?,
            projection: match (text.projection, text.projection_bias) {
                (false, _) => Projection::None,
                (true, true) => Projection::Linear(Linear::read(p, &at("text_projection"))?),
                (true, false) => Projection::Matrix(p.get(&at("text_projection"))?),
            },
            pool: text.pool,
            causal: text.causal,
        })
    }

    /// Rows of ids, all of the same length, to embeddings `[batch, dim]`, not normalised.
    pub(crate) fn forward(
        &self,
        rows: &[Vec<u32>],
        device: &Device,
    ) -> Result<Tensor<2>, ModelError> {
        let [vocabulary, width] = self.token_embedding.dims();
        let context = rows.first().map_or(0, Vec::len);
        if context == 0 || context > self.positional_embedding.dims()[0] {
            return Err(ModelError::Tokens(format!("rows of {context} ids do not fit the tower")));
        }
        if let Some(id) = rows.iter().flatten().find(|id| **id as usize >= vocabulary) {
            return Err(ModelError::Tokens(format!(
                "id {id} is beyond the vocabulary {vocabulary}"
            )));
        }
        if rows.iter().any(|row| row.len() != context) {
            return Err(ModelError::Tokens("rows differ in length".to_owned()));
        }
        let positions: Vec<usize> = rows.iter().map(|row| self.pooled_position(row)).collect();
        let groups = match self.causal {
            true => by_length(&positions),
            false => vec![Group { rows: (0..rows.len()).collect(), length: context }],
        };
        // One gather for all groups: its gradient is as large as the table.
        let tokens = groups.iter().flat_map(|group| {
            let ids = move |row: &usize| rows[*row][..group.length].iter();
            group.rows.iter().flat_map(ids).map(|id| i64::from(*id))
        });
        let x = self.token_embedding.clone().select(0, integers(tokens, device));
        let (mut begin, mut parts) = (0, Vec::new());
        for Group { rows, length } in &groups {
            let tokens = rows.len() * length;
            let part = x.clone().slice([begin..begin + tokens, 0..width]);
            begin += tokens;
            let positional = self.positional_embedding.clone().slice([0..*length, 0..width]);
            let part = part.reshape([rows.len(), *length, width]) + positional.unsqueeze();
            let part = self.transformer.forward(part).reshape([tokens, width]);
            let pooled = rows.iter().enumerate().map(|(i, row)| i * length + positions[*row]);
            parts.push(part.select(0, integers(pooled.map(|at| at as i64), device)));
        }
        let x = in_order(parts, &groups, device);
        let x = self.ln_final.forward(x);
        Ok(match &self.projection {
            Projection::None => x,
            Projection::Matrix(matrix) => ops::linear(x, matrix.clone().transpose(), None),
            Projection::Linear(linear) => linear.forward(x),
        })
    }

    fn pooled_position(&self, row: &[u32]) -> usize {
        let first = |id: u32| row.iter().position(|v| *v == id).unwrap_or(0);
        match self.pool {
            Pool::ArgMax => first(row.iter().copied().max().unwrap_or(0)),
            Pool::Eos(id) => first(id),
            Pool::Last => row.len() - 1,
            Pool::First | Pool::Average => 0,
        }
    }
}

/// Rows that are computed together, cut at a common length.
struct Group {
    rows: Vec<usize>,
    length: usize,
}

/// Rows a group has at least, so that its products run near their peak.
const GROUP: usize = 32;

/// Rows in groups of similar length. With a causal mask nothing behind the pooled position can
/// reach it, so cutting every group behind its last pooled position is exact; captions differ in
/// length so much that one common length would double the work.
fn by_length(positions: &[usize]) -> Vec<Group> {
    if positions.len() < 2 * GROUP {
        let length = positions.iter().max().map_or(0, |last| last + 1);
        return vec![Group { rows: (0..positions.len()).collect(), length }];
    }
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by_key(|row| positions[*row]);
    order
        .chunks(GROUP)
        .map(|rows| Group {
            rows: rows.to_vec(),
            length: rows.last().map_or(0, |row| positions[*row] + 1),
        })
        .collect()
}

/// The groups' results as rows of the batch.
fn in_order(mut parts: Vec<Tensor<2>>, groups: &[Group], device: &Device) -> Tensor<2> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let rows = groups.iter().flat_map(|group| &group.rows);
    let mut place = vec![0; groups.iter().map(|group| group.rows.len()).sum()];
    rows.enumerate().for_each(|(at, row)| place[*row] = at as i64);
    Tensor::cat(parts, 0).select(0, integers(place.into_iter(), device))
}

fn integers(values: impl Iterator<Item = i64>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}
