//! A patch: one square of the picture may become anything (Brown et al. 2017), for each picture its
//! own.
//!
//! Its budget is no ball but the share of the picture that the square covers
//! ([`Budget::Patch`]).

use burn::tensor::Tensor;
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;
use serde::{Deserialize, Serialize};

use crate::{
    Attack, Attacked, Batch, Budget, Flag, Keep, Loss, Scale, Target, Terms,
    descent::{Bookkeeping, Descent, Rule, View},
    tensors::{each_row, host, retain_rows},
};

/// Where the square may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// At the places of a grid in turn, with a patch for each; broken samples leave.
    #[default]
    Grid,
    /// Drawn anew at every step, with one patch for all of them: the mean over places is followed,
    /// as for a sticker whose place nobody chooses. The gradients of earlier steps are that mean.
    Random,
}

/// Share of the first step length that is left at the last step.
const LAST: f32 = 0.25;

parameters! {
    /// The pixels of a square, moved by steps along the sign of the gradient anywhere in [0, 1].
    pub struct Patch {
        /// Share of the picture that the square may cover, in [0, 1]; 0 changes nothing.
        share: f32 = 0.05,
        /// Where the square is: grid (the places of a grid in turn) or random (anew at each step).
        place: Place = Place::Grid,
        /// Places along each side of the grid, at least 1; 1 is the middle of the picture.
        grid: usize = 3,
        /// Steps for each place, or in a restart with place=random; at least 1.
        steps: usize = 100,
        /// Independent patches, the first of them grey at the start; at least 1.
        restarts: usize = 1,
        /// First step length; the last one is a quarter of it.
        alpha: f32 = 8.0 / 255.0,
        /// Weight of earlier gradients, in [0, 1).
        decay: f32 = 0.9,
        /// What is raised: ce, margin or dlr.
        loss: Loss = Loss::Margin,
        /// Divides the logits of a cross-entropy: model (by nothing), auto or a positive number.
        scale: Scale = Scale::Model,
        /// Class to reach: none, next, likely, likely-2, least, random or the number of a class.
        target: Option<Target> = None,
        /// Whether a sample stops once it is clearly broken. Switch it off for random victims, which
        /// may have erred by chance.
        early_exit: bool = true,
        /// Gradients averaged at each point, for random victims; at least 1.
        eot: usize = 1,
    }
}

/// A square in pictures of some size.
#[derive(Clone, Copy, Debug)]
struct Square {
    channels: usize,
    height: usize,
    width: usize,
    side: usize,
}

impl Square {
    fn of(clean: &Tensor<4>, share: f32) -> Self {
        let [_, channels, height, width] = clean.dims();
        let area = f64::from(share) * (height * width) as f64;
        // Rounding must not take a row from a share that is a whole square.
        let side = (area.sqrt() + 1e-6) as usize;
        Self { channels, height, width, side: side.min(height).min(width) }
    }

    /// Numbers of a patch.
    fn numbers(&self) -> usize {
        self.channels * self.side * self.side
    }

    /// Its place `number` of a grid: row and column of its upper left corner.
    fn on_grid(&self, grid: usize, number: usize) -> [usize; 2] {
        let along = |room: usize, step: usize| match grid {
            1 => room / 2,
            _ => (room * step + (grid - 1) / 2) / (grid - 1),
        };
        let (down, across) = (number / grid % grid, number % grid);
        [along(self.height - self.side, down), along(self.width - self.side, across)]
    }

    fn anywhere(&self, stream: &mut Stream) -> [usize; 2] {
        [self.height, self.width].map(|all| stream.below(all - self.side + 1))
    }

    /// Positions of a patch's entries at `place` in a picture, in the order of the patch.
    fn positions(self, [top, left]: [usize; 2]) -> impl Iterator<Item = usize> {
        let Self { channels, height, width, side } = self;
        let rows = (0..channels * side).map(move |i| (i / side * height + top + i % side) * width);
        rows.flat_map(move |row| (0..side).map(move |x| row + left + x))
    }
}

/// The patch of one row.
struct Sticker {
    stream: Stream,
    place: [usize; 2],
    numbers: Vec<f32>,
    memory: Vec<f32>,
}

impl Patch {
    /// The attack a spelling such as `patch:share=0.02,place=random` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let patch: Self = spelling.read()?;
        spelling.demand([
            ("share", (0.0..=1.0).contains(&patch.share), "a share lies in [0, 1]"),
            ("grid", patch.grid > 0, "at least one place"),
            ("steps", patch.steps > 0, "at least one step"),
            ("restarts", patch.restarts > 0, "at least one"),
            ("alpha", patch.alpha > 0.0, "a step length is positive"),
            ("decay", (0.0..1.0).contains(&patch.decay), "a weight lies in [0, 1)"),
            ("eot", patch.eot > 0, "at least one"),
        ])?;
        Ok(patch)
    }

    /// Patches that are tried of each sample.
    fn rounds(&self) -> usize {
        match self.place {
            Place::Grid => self.restarts * self.grid * self.grid,
            Place::Random => self.restarts,
        }
    }

    /// The patches at the beginning of a round, at their places.
    fn stickers(&self, square: Square, keys: &[String], round: usize, seed: u64) -> Vec<Sticker> {
        let purpose = format!("attack/patch/{round}");
        let sticker = |key: &String| {
            let mut stream = Stream::keyed(seed, &purpose, key);
            let (place, first) = match self.place {
                Place::Grid => (square.on_grid(self.grid, round), round < self.grid * self.grid),
                Place::Random => (square.anywhere(&mut stream), round == 0),
            };
            let number = |_| if first { 0.5 } else { stream.uniform() };
            let numbers = (0..square.numbers()).map(number).collect();
            Sticker { stream, place, numbers, memory: vec![0.0; square.numbers()] }
        };
        keys.iter().map(sticker).collect()
    }
}

/// The pictures with their patches.
fn pasted(square: Square, clean: &Tensor<4>, stickers: &[Sticker]) -> Tensor<4> {
    each_row(clean.clone(), |i, row| {
        let Sticker { place, numbers, .. } = &stickers[i];
        square.positions(*place).zip(numbers).for_each(|(at, number)| row[at] = *number);
    })
}

/// Moves the patches along the sign of their gradients.
struct Paste {
    square: Square,
    stickers: Vec<Sticker>,
    place: Place,
    alpha: f32,
    decay: f32,
    steps: usize,
    step: usize,
}

impl Rule for Paste {
    fn step(&mut self, view: &View<'_>) -> Tensor<4> {
        let gradient = host(view.gradient.clone());
        let width = (gradient.len() / self.stickers.len().max(1)).max(1);
        let done = self.step as f32 / self.steps.max(1) as f32;
        let length = self.alpha * (1.0 - (1.0 - LAST) * done);
        for (sticker, gradient) in self.stickers.iter_mut().zip(gradient.chunks(width)) {
            let here: Vec<f32> =
                self.square.positions(sticker.place).map(|at| gradient[at]).collect();
            let mean = here.iter().map(|g| f64::from(g.abs())).sum::<f64>() / here.len() as f64;
            let unit = if mean > 0.0 { (1.0 / mean) as f32 } else { 0.0 };
            let entries = sticker.numbers.iter_mut().zip(&mut sticker.memory).zip(&here);
            for ((number, memory), g) in entries {
                *memory = self.decay * *memory + g * unit;
                let sign = if *memory == 0.0 { 0.0 } else { memory.signum() };
                *number = (*number + length * sign).clamp(0.0, 1.0);
            }
            if self.place == Place::Random {
                sticker.place = self.square.anywhere(&mut sticker.stream);
            }
        }
        self.step += 1;
        pasted(self.square, view.clean, &self.stickers)
    }

    fn retain(&mut self, rows: &[usize]) {
        retain_rows(&mut self.stickers, rows);
    }
}

impl Attack for Patch {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let Self { target, steps, .. } = *self;
        let square = Square::of(&batch.pixels, self.share);
        // A share of less than a pixel allows no change.
        let share = if square.side > 0 { self.share } else { 0.0 };
        let classes = victim.classes();
        let loss = self.loss.possible(classes, target.is_some());
        let scale = if loss == Loss::Ce { self.scale } else { Scale::Model };
        let opening = |clean: &Tensor<4>, keys: &[String], round: usize| {
            pasted(square, clean, &self.stickers(square, keys, round, seed))
        };
        let rule = |keys: &[String], round: usize| -> Box<dyn Rule> {
            let stickers = self.stickers(square, keys, round, seed);
            let Self { place, alpha, decay, .. } = *self;
            Box::new(Paste { square, stickers, place, alpha, decay, steps, step: 0 })
        };
        let descent = Descent {
            terms: Terms {
                budget: Budget::Patch { share },
                keep: Keep::Best,
                everyone: false,
                target,
            },
            steps,
            restarts: self.rounds(),
            scouting: 0,
            towards: &[],
            draws: self.eot,
            bookkeeping: Bookkeeping::Mean,
            early_exit: self.early_exit,
            flag_zero_starts: false,
            objective: &move |logits, aim| loss.rows(scale.apply(logits), aim),
            through: None,
            opening: &opening,
            rule: &rule,
        };
        let mut attacked = descent.run(victim, batch, seed);
        if loss != self.loss {
            attacked.flags.push(Flag::MarginInstead { classes });
        }
        attacked
    }

    fn spelling(&self) -> Spelling {
        self.spelled("patch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn squares_lie_inside_and_cover_no_more_than_their_share() {
        let clean = Tensor::<4>::zeros([1, 3, 16, 20], &Device::flex());
        for (share, side) in [(0.0, 0), (0.003, 0), (0.0125, 2), (0.05, 4), (0.2, 8), (1.0, 16)] {
            let square = Square::of(&clean, share);
            assert_eq!(square.side, side, "{share}");
            assert!((side * side) as f32 <= share * 320.0 + 1e-3);
            let mut stream = Stream::keyed(0, "test", "a");
            let places = (0..9).map(|number| square.on_grid(3, number));
            for [top, left] in places.chain((0..50).map(|_| square.anywhere(&mut stream))) {
                assert!(top + side <= 16 && left + side <= 20);
            }
        }
        let square = Square::of(&clean, 0.05);
        assert_eq!([square.on_grid(3, 0), square.on_grid(3, 8)], [[0, 0], [12, 16]]);
        assert_eq!(square.on_grid(1, 0), [6, 8]);
        let at: Vec<usize> = square.positions([1, 2]).collect();
        assert_eq!((at.len(), at[0], at[4], at[16]), (48, 22, 42, 342));
    }
}
