//! Looks at the scene corpus: `scenes SPELLING [SHEET.png]` measures how fast scenes are drawn,
//! prints captions, and writes a sheet of eight by eight pictures.

use clipguard_data::{RawPicture, Source, scenes::Scenes};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let scenes = Scenes::parse(args.first().map_or("scenes:20000", String::as_str))?;
    let count = scenes.len().unwrap_or_default();
    // Twice: the first round unpacks the drawings.
    for round in ["first round", "second round"] {
        let start = Instant::now();
        let mut bytes = 0;
        for sample in scenes.open(0)? {
            if let RawPicture::Drawn(draw) = sample?.picture {
                bytes += draw()?.rgb.len();
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{round}: {:.0} scenes/s, {bytes} bytes", count as f64 / seconds);
    }
    let start = Instant::now();
    let words: usize =
        (0..count).filter_map(|i| scenes.caption(i)).map(|c| c.split_whitespace().count()).sum();
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("captions alone: {rate:.0}/s, {:.1} words each", words as f64 / count as f64);
    if let Some(path) = args.get(1) {
        let (side, gap, zoom) = (scenes.config().side, 4, 2);
        let step = side * zoom + gap;
        let mut sheet = image::RgbImage::from_pixel(8 * step, 8 * step, image::Rgb([255; 3]));
        for i in 0..count.min(64) {
            let Some(picture) = scenes.picture(i) else { continue };
            for (n, pixel) in picture.rgb.chunks_exact(3).enumerate() {
                let (x, y) = (n as u32 % side, n as u32 / side);
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (left, top) =
                        (i as u32 % 8 * step + x * zoom + dx, i as u32 / 8 * step + y * zoom + dy);
                    sheet.put_pixel(left, top, image::Rgb([pixel[0], pixel[1], pixel[2]]));
                }
            }
        }
        sheet.save(path)?;
    }
    for i in 0..count.min(64) {
        println!("{i:3} {}", scenes.caption(i).unwrap_or_default());
    }
    Ok(())
}
