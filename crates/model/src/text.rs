//! CLIP's text transformer.

use crate::{
    ModelError, Parameters,
    config::{Architecture, Pool},
    layers::{Blocks, LayerNorm, Linear},
};
use burn::tensor::{Device, Int, Tensor, TensorData};

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
        // With a causal mask nothing behind the pooled position can reach it: cutting the batch
        // at its last pooled position is exact.
        let length = match (self.causal, positions.iter().max()) {
            (true, Some(last)) => last + 1,
            _ => context,
        };
        let ids =
            integers(rows.iter().flat_map(|row| row[..length].iter().map(|id| *id as i64)), device);
        let batch = rows.len();
        let x = self.token_embedding.clone().select(0, ids).reshape([batch, length, width]);
        let positional = self.positional_embedding.clone().slice([0..length, 0..width]);
        let x = self.transformer.forward(x + positional.unsqueeze());
        let pooled = positions.iter().enumerate().map(|(row, p)| (row * length + p) as i64);
        let x = x.reshape([batch * length, width]).select(0, integers(pooled, device));
        let x = self.ln_final.forward(x);
        Ok(match &self.projection {
            Projection::None => x,
            Projection::Matrix(matrix) => x.matmul(matrix.clone()),
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

fn integers(values: impl Iterator<Item = i64>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}
