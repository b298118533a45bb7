//! Shifts: the mean embedding of a picture and of its copies moved by a few pixels.
//!
//! An encoder that has been trained under attack still answers a moved picture a little differently,
//! and one perturbation has to fool the mean of all places at once. Nothing is random and nothing is
//! hidden: the gradient passes every copy. Alone, on an encoder that was not made robust, it protects
//! hardly at all.

use burn::tensor::Tensor;
use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::normalise;

use crate::{Encode, Purifier};

const NAME: &str = "shifts";

parameters! {
    /// How far the copies are moved.
    pub struct Settings {
        /// Pixels of the prepared picture by which a copy is moved; the border repeats. Odd numbers
        /// show layers with a stride what they skip otherwise.
        pixels: usize = 3,
        /// Whether copies are moved along the diagonals as well: nine encodings instead of five.
        diagonals: bool = false,
    }
}

/// The mean embedding over places.
#[derive(Clone, Debug)]
pub struct Shifts {
    settings: Settings,
}

impl Shifts {
    /// The purifier of a spelling such as `shifts:pixels=3`.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let settings: Settings = spelling.read()?;
        let fits = (1..=64).contains(&settings.pixels);
        spelling.demand([("pixels", fits, "1 to 64 pixels")])?;
        Ok(Self { settings })
    }

    /// Where the copies go, down and right, the picture itself first.
    fn places(&self) -> Vec<[i64; 2]> {
        let p = self.settings.pixels as i64;
        let mut places = vec![[0, 0], [-p, 0], [p, 0], [0, -p], [0, p]];
        if self.settings.diagonals {
            places.extend([[-p, -p], [-p, p], [p, -p], [p, p]]);
        }
        places
    }
}

/// Pictures moved down and right, towards smaller indices where the number is negative; at most up
/// to the last row or column, which is repeated.
fn moved(pixels: &Tensor<4>, place: [i64; 2]) -> Tensor<4> {
    place.iter().zip([2, 3]).fold(pixels.clone(), |pixels, (by, dim)| {
        let size = pixels.dims()[dim];
        let step = (by.unsigned_abs() as usize).min(size - 1);
        if step == 0 {
            return pixels;
        }
        let kept = |from| pixels.clone().narrow(dim, from, size - step);
        let border = |at| pixels.clone().narrow(dim, at, 1).repeat_dim(dim, step);
        match *by > 0 {
            true => Tensor::cat(vec![border(0), kept(0)], dim),
            false => Tensor::cat(vec![kept(step), border(size - 1)], dim),
        }
    })
}

impl Purifier for Shifts {
    fn encode(
        &self,
        pixels: Tensor<4>,
        _keys: &[String],
        _draw: u64,
        encoder: &Encode<'_>,
    ) -> Tensor<2> {
        let embedded = self.places().into_iter().map(|place| encoder(moved(&pixels, place)));
        normalise(embedded.reduce(|sum, one| sum + one).unwrap_or_else(|| encoder(pixels.clone())))
    }

    fn needs_pictures(&self) -> bool {
        true
    }

    fn spelling(&self) -> Spelling {
        self.settings.spelled(NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Defended, parse,
        ttc::tests::{pictures, tiny},
    };
    use burn::tensor::Device;
    use clipguard_model::{Query, Victim};
    use std::sync::Arc;

    fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_to_vec::<f32>().unwrap()
    }

    #[test]
    fn pictures_move_and_their_border_repeats() {
        let picture = Tensor::<4>::from_data([[[[1., 2., 3.], [4., 5., 6.]]]], &Device::flex());
        let at = |down, right| host(moved(&picture, [down, right]));
        assert_eq!(at(0, 0), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(at(0, 1), [1., 1., 2., 4., 4., 5.]);
        assert_eq!(at(0, -2), [3., 3., 3., 6., 6., 6.]);
        assert_eq!(at(1, 0), [1., 2., 3., 1., 2., 3.]);
        assert_eq!(at(-1, 1), [4., 4., 5., 4., 4., 5.]);
        // Farther than the picture is large: the last column everywhere.
        assert_eq!(at(0, -9), at(0, -2));
    }

    #[test]
    fn the_answer_is_the_mean_over_places_and_its_gradient_passes_all_of_them() {
        let (pixels, keys) = (pictures(2), ["a", "b"].map(str::to_owned));
        let clip = Arc::new(tiny());
        let head = Tensor::<2>::eye(16, &clip.device().clone());
        let material = crate::Material::default();
        for (text, count) in [("shifts", 5), ("shifts:pixels=1,diagonals=true", 9)] {
            let Ok(purifier) = parse(text, &material) else { panic!("{text}") };
            let spelling = purifier.spelling();
            let places = Shifts::from_spelling(&spelling).unwrap().places();
            assert_eq!(places.len(), count);
            let victim = Defended::new(clip.clone(), head.clone(), 1.0).with(purifier);
            let ask =
                |pixels: Tensor<4>, keys: &[String]| victim.logits(Query { pixels, keys, draw: 0 });
            let all = host(ask(pixels.clone(), &keys));
            let one = |place| normalise(clip.encode_image(moved(&pixels, place)));
            let sum = places.into_iter().map(one).reduce(|a, b| a + b).unwrap();
            assert_eq!(host(normalise(sum)), all);
            let alone = host(ask(pixels.clone().narrow(0, 1, 1), &keys[1..]));
            assert_eq!(alone, all[16..]);

            let leaf = pixels.clone().autodiff().require_grad();
            let top = ask(leaf.clone(), &keys).narrow(1, 0, 1).sum();
            let gradient = leaf.grad_remove(&mut top.backward()).unwrap();
            let push = gradient.clone() * 1e-2 / gradient.clone().abs().max().unsqueeze();
            let rise = ask(pixels.clone() + push.clone(), &keys)
                - ask(pixels.clone() - push.clone(), &keys);
            let rise = rise.narrow(1, 0, 1).sum().into_scalar::<f32>() / 2.0;
            let said = (gradient * push).sum().into_scalar::<f32>();
            assert!((rise / said - 1.0).abs() < 0.05, "{rise} {said}");
        }
    }
}
