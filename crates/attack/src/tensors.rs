//! Between burn's tensors and per-sample slices.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// The numbers of a tensor, row by row, without gradients; its own buffer if nobody shares it.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data();
    match data.dtype() {
        DType::F32 => data.try_into_vec().unwrap_or_default(),
        _ => data.iter().collect(),
    }
}

/// A batch from its numbers, row by row.
pub(crate) fn batch_of(numbers: Vec<f32>, like: &Tensor<4>) -> Tensor<4> {
    let [_, channels, height, width] = like.dims();
    let rows = numbers.len() / (channels * height * width).max(1);
    Tensor::from_data(TensorData::new(numbers, [rows, channels, height, width]), &like.device())
}

/// Row numbers as an index tensor `[rows]`.
pub(crate) fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Tensor::from_data(TensorData::from(rows.as_slice()), device)
}

/// One number a sample, `[batch, 1, 1, 1]`.
pub(crate) fn column(values: Vec<f32>, device: &Device) -> Tensor<4> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count, 1, 1, 1]), device)
}

/// Row `row` of a batch, `[1, channels, height, width]`.
pub(crate) fn row(batch: &Tensor<4>, row: usize) -> Tensor<4> {
    batch.clone().narrow(0, row, 1)
}

/// Applies `change(row number, slice)` to each sample and gives back the changed batch.
pub(crate) fn each_row(batch: Tensor<4>, mut change: impl FnMut(usize, &mut [f32])) -> Tensor<4> {
    let (shape, device) = (batch.dims(), batch.device());
    let width = shape[1..].iter().product::<usize>().max(1);
    let mut numbers = host(batch);
    numbers.chunks_mut(width).enumerate().for_each(|(i, row)| change(i, row));
    Tensor::from_data(TensorData::new(numbers, shape), &device)
}

/// Lowest index of the largest entry; `None` when an entry is not a number.
pub(crate) fn argmax(row: &[f32]) -> Option<usize> {
    if row.iter().any(|z| z.is_nan()) {
        return None;
    }
    let first = row.first()?;
    let best = row
        .iter()
        .enumerate()
        .skip(1)
        .fold((0, first), |best, (i, z)| if z > best.1 { (i, z) } else { best });
    Some(best.0)
}

/// Keeps the entries at the positions `kept` (rising).
pub(crate) fn retain_rows<T>(rows: &mut Vec<T>, kept: &[usize]) {
    let mut number = 0;
    rows.retain(|_| {
        number += 1;
        kept.binary_search(&(number - 1)).is_ok()
    });
}
