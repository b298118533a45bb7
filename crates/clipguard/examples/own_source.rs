//! A data source of one's own, embedded.
//!
//! A source says what is at a position; decoding, threads and batches are the loader's business.
//! This one draws emoji of several styles on grounds of different colours. What the embeddings are
//! worth can be seen at once: the nearest other picture should show the same thing.
//!
//! `cargo run --release --example own_source`

use clipguard::{
    burn::tensor::{Device, Tensor},
    data::{
        DataError, Limits, Loader, LoaderOptions, PictureError, RawPicture, RawSample, Samples,
        Source, scenes,
    },
    model::{Checkpoint, Clip, normalise},
};
use std::{error::Error, sync::Arc};

/// Every name in every style, one after another.
#[derive(Clone)]
struct Sprites {
    names: Vec<String>,
    styles: Vec<&'static str>,
}

impl Source for Sprites {
    fn name(&self) -> &str {
        "sprites"
    }

    fn len(&self) -> Option<u64> {
        Some((self.names.len() * self.styles.len()) as u64)
    }

    fn classes(&self) -> Option<&[String]> {
        Some(&self.names)
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        let own = self.clone();
        Ok(Box::new((start..).map_while(move |index| own.get(index))))
    }

    /// Given because it is easy here: a trainer can then shuffle without reading everything.
    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        let place = index as usize;
        let label = place / self.styles.len();
        let (name, style) =
            (self.names.get(label)?.clone(), self.styles[place % self.styles.len()]);
        // Random streams are keyed by this, so it has to be the same every time.
        let key = format!("{name}/{style}");
        let ground = [[255, 255, 255], [40, 60, 110], [200, 230, 200]][place % 3];
        let caption = format!("a drawing of the {name}");
        // Drawn when a worker thread asks for it; a sample that cannot be had is left out.
        let draw = move || {
            let missing = || PictureError::Broken(format!("no `{name}` in the style {style}"));
            scenes::sprite(&name, style, 64, ground).ok_or_else(missing)
        };
        let picture = RawPicture::Drawn(Arc::new(draw));
        Some(Ok(RawSample { index, key, picture, caption: Some(caption), label: Some(label) }))
    }
}

/// Key and unit embedding of every picture.
fn embed(source: &dyn Source, clip: &Clip) -> Result<Vec<(String, Tensor<2>)>, DataError> {
    let resize = clip.preprocess().resize;
    let mut loader = Loader::new(source, LoaderOptions::default(), move |raw| {
        let sample = raw.decode(&Limits::default())?;
        Ok((sample.key, resize.picture(&sample.picture).rgb))
    })?;
    let mut rows = Vec::new();
    loop {
        let batch = loader.by_ref().take(32).collect::<Result<Vec<_>, _>>()?;
        if batch.is_empty() {
            break;
        }
        let pictures: Vec<&[u8]> = batch.iter().map(|(_, rgb)| rgb.as_slice()).collect();
        let pixels = clip.preprocess().stack(&pictures, clip.device());
        let embeddings = normalise(clip.encode_image(pixels));
        let row = |i| embeddings.clone().narrow(0, i, 1);
        rows.extend(batch.into_iter().enumerate().map(|(i, (key, _))| (key, row(i))));
    }
    loader.skipped().first.iter().for_each(|(_, reason)| println!("left out {reason}"));
    Ok(rows)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (same, all) = nearest()?;
    println!("{same} of {all} pictures lie nearest to one of the same thing");
    Ok(())
}

/// How many pictures have a picture of the same thing as nearest neighbour, and how many there are.
fn nearest() -> Result<(usize, usize), Box<dyn Error>> {
    let names = ["cat", "dog", "tree", "car", "house", "apple", "fish", "banana"];
    let styles = vec!["noto", "fluent-flat", "twemoji"];
    let source = Sprites { names: names.map(str::to_owned).to_vec(), styles };
    let clip = Checkpoint::open("embedded")?.build(&Device::flex())?;
    let rows = embed(&source, &clip)?;
    let thing = |key: &str| key.split('/').next().unwrap_or_default().to_owned();
    let mut same = 0;
    for (key, row) in &rows {
        let others = rows.iter().filter(|(other, _)| other != key);
        let cosine = |z: &Tensor<2>| (z.clone() * row.clone()).sum().into_scalar::<f32>();
        let nearest =
            others.map(|(other, z)| (other, cosine(z))).max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((other, cosine)) = nearest else { continue };
        println!("{key:<20} nearest {other:<20} cosine {cosine:.2}");
        same += usize::from(thing(key) == thing(other));
    }
    Ok((same, rows.len()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn most_pictures_lie_nearest_to_one_of_the_same_thing() {
        let (same, all) = super::nearest().expect("the source can be embedded");
        assert!(all >= 16 && 2 * same > all, "{same} of {all}");
    }
}
