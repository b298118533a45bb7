//! JPEG files to pixels: as an evaluation prepares them, and as SimCLR draws a view. One thread.

use clipguard_data::{Limits, Picture, Resize, augment};
use std::{fs, hint::black_box};

use crate::Case;

const SIDE: u32 = 224;

pub(crate) fn case(work: &str, folder: &str) -> Case {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<Vec<u8>> = entries.map(|path| fs::read(path).unwrap()).collect();
    let decode = |bytes: &[u8]| Picture::decode(bytes, &Limits::default()).unwrap().into_picture();
    match work {
        "preprocess" => {
            let resize = Resize::new(SIDE);
            Box::new(move || {
                for bytes in &files {
                    black_box(resize.picture(&decode(bytes)).to_unit_planes());
                }
            })
        }
        "simclr" => {
            let simclr = augment::parse("simclr").unwrap();
            Box::new(move || {
                for (i, bytes) in files.iter().enumerate() {
                    let mut stream = augment::stream(0, &i.to_string(), 0, 0);
                    let view = simclr.view(&decode(bytes), SIDE, &mut stream);
                    black_box(view.to_unit_planes());
                }
            })
        }
        _ => panic!("no work `{work}` on pictures"),
    }
}
